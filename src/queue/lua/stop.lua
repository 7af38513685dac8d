#!lua flags=allow-oom
-- Cancels a workflow as a whole: what it would still bring into the queue is not admitted. Jobs that are there already are
-- cancelled one by one.
-- KEYS: stops, groups, group_then, group_results, group_times
-- ARGV: the first job of the chain, or the group; ms for which that is remembered
-- Out:  the state the group of that name had: 'o' open, 'd' done, 'f' failed, 'c' cancelled; '' if there is none
local stops, groups, group_then, group_results, group_times = unpack(KEYS)
local name = ARGV[1]
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({groups, group_then, group_results}) do redis.call('HLEN', key) end
for _, key in ipairs({stops, group_times}) do redis.call('ZCARD', key) end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', stops, now + ARGV[2], name)
redis.call('ZREMRANGEBYSCORE', stops, '-inf', now)
local counts, state = string.match(redis.call('HGET', groups, name) or '', '^(.+|)(%a)$')
if not counts then return '' end
if state == 'o' then
  redis.call('HSET', groups, name, counts .. 'c')
  redis.call('HDEL', group_then, name)
  redis.call('HDEL', group_results, name)
  redis.call('ZADD', group_times, now, name)
end
return state
