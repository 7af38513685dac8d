#!lua flags=allow-oom
-- Forgets groups that have not changed for long, the oldest of too many, and locks that outlived their time. One that is
-- open and has members that may end still is kept, however long they are put off: it is looked at again as long after.
-- KEYS: groups, group_then, group_results, group_times, locks, lock_ends, stops, stats
-- ARGV: ms after which a group is forgotten, groups kept at most, entries removed at most (a few hundred)
-- Out:  {groups forgotten, locks forgotten, how many of the groups were open, one of those or ''}
local groups, group_then, group_results, group_times, locks, lock_ends, stops, stats = unpack(KEYS)
local most = tonumber(ARGV[3])
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({groups, group_then, group_results, locks, stats}) do redis.call('HLEN', key) end
for _, key in ipairs({group_times, lock_ends, stops}) do redis.call('ZCARD', key) end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local old = redis.call('ZRANGE', group_times, '-inf', now - ARGV[1], 'BYSCORE', 'LIMIT', 0, most)
local excess = math.min(redis.call('ZCARD', group_times) - ARGV[2], most)
if excess > #old then old = redis.call('ZRANGE', group_times, 0, excess - 1) end
local forgotten, kept, open = {}, {}, {}
for i, text in ipairs(#old > 0 and redis.call('HMGET', groups, unpack(old)) or {}) do
  local members, ended, failed = string.match(text or '', '^%d+|%a|(%d+)|(%d+)|(%d+)|o$')
  if members and members - ended - failed > 0 then
    kept[#kept + 1], kept[#kept + 2] = now, old[i]
  else
    forgotten[#forgotten + 1] = old[i]
    if members then open[#open + 1] = old[i] end
  end
end
if #kept > 0 then redis.call('ZADD', group_times, unpack(kept)) end
if #forgotten > 0 then
  redis.call('ZREM', group_times, unpack(forgotten))
  for _, key in ipairs({groups, group_then, group_results}) do redis.call('HDEL', key, unpack(forgotten)) end
end
if #open > 0 then redis.pcall('HINCRBY', stats, 'groups_dropped', #open) end
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
return {#forgotten, #gone, #open, open[1] or ''}
