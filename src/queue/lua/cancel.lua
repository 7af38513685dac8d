#!lua flags=allow-oom
-- Ends a job that waits; asks for the end of one that runs.
-- KEYS: jobs, running, delayed, dead, tomb, cancels, ids, meta, recent, stats
-- ARGV: id, record for the ring, '1' if the id is to be remembered, id window ms, recent max
-- Out:  'cancelled', 'asked' (it runs; its daemon is told), or its state: 'dead', 'unknown'
local jobs, running, delayed, dead, tomb, cancels, ids, meta, recent, stats = unpack(KEYS)
local id = ARGV[1]
if redis.call('HEXISTS', jobs, id) == 0 then return 'unknown' end
if redis.call('ZSCORE', dead, id) then return 'dead' end
if redis.call('HEXISTS', running, id) == 1 then
  redis.call('HSET', cancels, id, '1')
  return 'asked'
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
-- An entry in a flow can't be found cheaply: a tombstone makes the claim drop it.
if redis.call('ZREM', delayed, id) == 0 then redis.call('HINCRBY', tomb, id, 1) end
redis.call('HDEL', jobs, id)
redis.call('HDEL', meta, id)
if ARGV[3] == '1' then redis.call('ZADD', ids, now + ARGV[4], id) end
redis.call('LPUSH', recent, ARGV[2])
redis.call('LTRIM', recent, 0, ARGV[5] - 1)
redis.call('HINCRBY', stats, 'cancelled', 1)
return 'cancelled'
