#!lua flags=allow-oom
-- Declares an incarnation dead, if its heartbeat is still the one the caller saw stand still; or lets it go by itself.
-- KEYS: workers, settled
-- ARGV: incarnation, heartbeat ms as seen ('' when it goes by itself)
-- Out:  1 if it is gone by this call, else 0
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or (ARGV[2] ~= '' and tonumber(score) ~= tonumber(ARGV[2])) then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
