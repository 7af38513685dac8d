#!lua flags=allow-oom
-- Removes dead jobs for good.
-- KEYS: dead, jobs, meta, stats
-- ARGV: id... (at most 500)
-- Out:  number removed
local dead, jobs, meta, stats = unpack(KEYS)
local gone = {}
for _, id in ipairs(ARGV) do
  if redis.call('ZREM', dead, id) == 1 then gone[#gone + 1] = id end
end
if #gone > 0 then
  redis.call('HDEL', jobs, unpack(gone))
  redis.call('HDEL', meta, unpack(gone))
  redis.call('HINCRBY', stats, 'purged', #gone)
end
return #gone
