#!lua flags=allow-oom
-- Removes dead jobs for good.
-- KEYS: those of lib/ties.lua, dead, jobs, meta, stats
-- ARGV: id... (at most 500)
-- Out:  number removed
local dead, jobs, meta, stats = unpack(KEYS, 10)
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({jobs, meta, stats}) do redis.call('HLEN', key) end
local bound = redis.call('HLEN', TIES) > 0
if bound then check_ties() end
local gone = {}
for _, id in ipairs(ARGV) do
  if redis.call('ZREM', dead, id) == 1 then gone[#gone + 1] = id end
end
if #gone > 0 then
  redis.call('HDEL', jobs, unpack(gone))
  redis.call('HDEL', meta, unpack(gone))
  redis.pcall('HINCRBY', stats, 'purged', #gone)
end
if bound and #gone > 0 then
  local t = redis.call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  for i, tied in ipairs(redis.call('HMGET', TIES, unpack(gone))) do
    if tied then untie(gone[i], tied, 'purged', nil, nil, now) end
  end
  keep_groups(now)
end
return #gone
