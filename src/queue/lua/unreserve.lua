#!lua flags=allow-oom
-- Finds ids that are reserved for entries of an inbox that is empty.
-- KEYS: inbox, ids
-- ARGV: most of them, '1' to release them, else they are only told
-- Out:  {id...}
if redis.call('LLEN', KEYS[1]) > 0 then return {} end
local reserved = redis.call('ZRANGE', KEYS[2], 1, 1, 'BYSCORE', 'LIMIT', 0, ARGV[1])
if #reserved > 0 and ARGV[2] == '1' then redis.call('ZREM', KEYS[2], unpack(reserved)) end
return reserved
