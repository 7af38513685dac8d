-- An entry in a flow can't be found cheaply: a tombstone makes the claim drop those that are not younger than this.
local function lay_stone(tomb, id, now)
  local count, at = string.match(redis.call('HGET', tomb, id) or '', '^(%d+):(%d+)$')
  -- An entry after an earlier tombstone of the same millisecond bears the next one.
  redis.call('HSET', tomb, id, string.format('%d:%d', (count or 0) + 1, math.max(now, (at or 0) + 1)))
end
