#!lua flags=allow-oom
-- Makes tombstones count what they are for, each only if it is still as it was read.
-- KEYS: tomb
-- ARGV: for each: id, tombstone as read, entries it is for (at most 200)
-- Out:  number changed
local changed = 0
for i = 1, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    local at = string.match(ARGV[i + 1], '^%d+:(%d+)$')
    if at and tonumber(ARGV[i + 2]) > 0 then
      redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2] .. ':' .. at)
    else
      redis.call('HDEL', KEYS[1], ARGV[i])
    end
    changed = changed + 1
  end
end
return changed
