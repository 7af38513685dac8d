#!lua flags=allow-oom
-- Puts a dead or delayed job back to the tail of its flow, to run now.
-- KEYS: jobs, dead, delayed, meta, stats, tomb, ready, flow, ties, locks, ids
-- ARGV: id, kind, history of a job that has none, event if it was dead, event if it was delayed, the state
--       it must be in ('dead', 'delayed') or ''
-- Out:  'dead' or 'delayed' as it was, or 'no' if it is not in the state wanted, or on its way to
--       another queue
local jobs, dead, delayed, meta, stats, tomb, ready, flow, ties, locks, ids = unpack(KEYS)
local id = ARGV[1]
if redis.call('HEXISTS', jobs, id) == 0 then return 'no' end
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({meta, stats, tomb, ties, locks}) do redis.call('HLEN', key) end
for _, key in ipairs({dead, delayed, ready, ids}) do redis.call('ZCARD', key) end
redis.call('LLEN', flow)
-- One that is on its way to another queue may be there already.
local last = redis.call('ZSCORE', dead, id) and string.match(redis.call('HGET', meta, id) or '', '\t([^\t]*)$')
if last and string.find(last, '"event":"moving"', 1, true) then return 'no' end
local was = ARGV[6] ~= 'delayed' and redis.call('ZREM', dead, id) == 1 and 'dead'
  or ARGV[6] ~= 'dead' and redis.call('ZREM', delayed, id) == 1 and 'delayed'
if not was then return 'no' end
-- It lives again: how it ended is not to be remembered.
if was == 'dead' then redis.call('ZREM', ids, id) end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if was == 'dead' then grow(stats, 'dead_bytes', -dead_size(jobs, meta, id)) end
-- After the entries that a cancelled job of the same id left behind, even if the clock stepped back since.
local at = string.match(redis.call('HGET', tomb, id) or '', '^%d+:(%d+)$')
local since = math.max(now, at and at + 1 or 0)
local event = was == 'dead' and ARGV[4] or ARGV[5]
redis.call('HSET', meta, id, (redis.call('HGET', meta, id) or ARGV[3]) .. '\t' .. event)
-- It stands again for what it stood for, unless another one does by now.
for lock in string.gmatch('\n' .. (redis.call('HGET', ties, id) or ''), '\nf([^\n]+)') do
  redis.call('HSETNX', locks, lock, string.format('%s|f|0|%d', id, now))
end
redis.call('RPUSH', flow, string.format('%013d:%s', since, id))
redis.call('ZADD', ready, 'NX', since, ARGV[2])
redis.pcall('HINCRBY', stats, 'requeued', 1)
return was
