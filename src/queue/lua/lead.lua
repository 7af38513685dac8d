#!lua flags=allow-oom
-- Takes or keeps the right to audit the queue, for a while.
-- KEYS: auditor
-- ARGV: who, ms
-- Out:  1 if it has it, else 0
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
