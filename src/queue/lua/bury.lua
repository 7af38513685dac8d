#!lua flags=allow-oom
-- Removes dead jobs for good.
-- KEYS: dead, jobs, meta, stats
-- ARGV: id... (at most 500)
-- Out:  number removed
local dead, jobs, meta, stats = unpack(KEYS)
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({jobs, meta, stats}) do redis.call('HLEN', key) end
local gone = {}
for _, id in ipairs(ARGV) do
  if redis.call('ZREM', dead, id) == 1 then gone[#gone + 1] = id end
end
if #gone > 0 then
  redis.call('HDEL', jobs, unpack(gone))
  redis.call('HDEL', meta, unpack(gone))
  redis.pcall('HINCRBY', stats, 'purged', #gone)
end
return #gone
