#!lua flags=allow-oom
-- Shows that an incarnation lives, and who else does.
-- KEYS: workers
-- ARGV: incarnation, '1' to register it, max workers listed
-- Out:  {now_ms, worker, last heartbeat ms, ...}; error LEASE if it is not registered and does not ask to be
local workers = KEYS[1]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if ARGV[2] ~= '1' and not redis.call('ZSCORE', workers, ARGV[1]) then return redis.error_reply('LEASE lost') end
redis.call('ZADD', workers, now, ARGV[1])
-- The longest silent come first.
return {now, unpack(redis.call('ZRANGE', workers, 0, ARGV[3] - 1, 'WITHSCORES'))}
