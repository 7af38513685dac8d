#!lua flags=allow-oom
-- Puts waiting jobs among the dead, where they keep all they hold, each with an event; dead ones stay, with the event.
-- KEYS: jobs, running, delayed, dead, tomb, meta, stats
-- ARGV: the state they must be in ('pending', 'delayed', 'dead'), then for each (at most 100 of them): id, history of a
--       job that has none, event
-- Out:  for each: 1, or 0 if it is in another state by now
local jobs, running, delayed, dead, tomb, meta, stats = unpack(KEYS)
local wanted, out = ARGV[1], {}
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({jobs, running, tomb, meta, stats}) do redis.call('HLEN', key) end
for _, key in ipairs({delayed, dead}) do redis.call('ZCARD', key) end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local function state_of(id)
  if redis.call('HEXISTS', jobs, id) == 0 then return 'gone' end
  if redis.call('HEXISTS', running, id) == 1 then return 'running' end
  if redis.call('ZSCORE', delayed, id) then return 'delayed' end
  if redis.call('ZSCORE', dead, id) then return 'dead' end
  return 'pending'
end

for i = 2, #ARGV, 3 do
  local id = ARGV[i]
  local is = state_of(id) == wanted
  if is then
    local counted = wanted == 'dead' and dead_size(jobs, meta, id) or 0
    if wanted == 'delayed' then
      redis.call('ZREM', delayed, id)
    elseif wanted == 'pending' then
      -- Its entry in a flow can't be found cheaply: the claim drops it by this tombstone.
      local count, at = string.match(redis.call('HGET', tomb, id) or '', '^(%d+):(%d+)$')
      redis.call('HSET', tomb, id, string.format('%d:%d', (count or 0) + 1, math.max(now, (at or 0) + 1)))
    end
    redis.call('ZADD', dead, 'NX', now, id)
    redis.call('HSET', meta, id, (redis.call('HGET', meta, id) or ARGV[i + 1]) .. '\t' .. ARGV[i + 2])
    grow(stats, 'dead_bytes', dead_size(jobs, meta, id) - counted)
  end
  out[#out + 1] = is and 1 or 0
end
return out
