#!lua flags=allow-oom
-- Forgets groups that have not changed for long, the oldest of too many, and locks that outlived their time.
-- KEYS: groups, group_then, group_results, group_times, locks, lock_ends, stops
-- ARGV: ms after which a group is forgotten, groups kept at most, entries removed at most (a few hundred)
-- Out:  {groups forgotten, locks forgotten}
local groups, group_then, group_results, group_times, locks, lock_ends, stops = unpack(KEYS)
local most = tonumber(ARGV[3])
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({groups, group_then, group_results, locks}) do redis.call('HLEN', key) end
for _, key in ipairs({group_times, lock_ends, stops}) do redis.call('ZCARD', key) end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local old = redis.call('ZRANGE', group_times, '-inf', now - ARGV[1], 'BYSCORE', 'LIMIT', 0, most)
local excess = math.min(redis.call('ZCARD', group_times) - ARGV[2], most)
if excess > #old then old = redis.call('ZRANGE', group_times, 0, excess - 1) end
if #old > 0 then
  redis.call('ZREM', group_times, unpack(old))
  for _, key in ipairs({groups, group_then, group_results}) do redis.call('HDEL', key, unpack(old)) end
end
local gone = redis.call('ZRANGE', lock_ends, '-inf', now, 'BYSCORE', 'LIMIT', 0, most)
if #gone > 0 then
  redis.call('ZREM', lock_ends, unpack(gone))
  for _, name in ipairs(gone) do
    -- The enqueue script may have reserved it for another job since.
    local ends = string.match(redis.call('HGET', locks, name) or '', '|t|(%d+)|%d+$')
    if ends and tonumber(ends) <= now then redis.call('HDEL', locks, name) end
  end
end
redis.call('ZREMRANGEBYSCORE', stops, '-inf', now)
return {#old, #gone}
