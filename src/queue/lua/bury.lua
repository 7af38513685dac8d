#!lua flags=allow-oom
-- Removes dead jobs for good; what is known of them goes to the archive.
-- KEYS: those of lib/ties.lua, dead, jobs, meta, stats, archive, archived
-- ARGV: state for their records, event for their histories, history max, history bytes, id... (at most 500)
-- Out:  number removed
local dead, jobs, meta, stats, archive, archived = unpack(KEYS, 10)
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({jobs, meta, stats, archive}) do redis.call('HLEN', key) end
redis.call('ZCARD', archived)
local bound = redis.call('HLEN', TIES) > 0
if bound then check_ties() end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local gone, bytes = {}, 0
for i = 5, #ARGV do
  local id = ARGV[i]
  if redis.call('ZREM', dead, id) == 1 then
    gone[#gone + 1] = id
    bytes = bytes + dead_size(jobs, meta, id)
    archiving.note(id, archiving.record(id, ARGV[1], now), redis.call('HGET', meta, id), ARGV[2])
  end
end
if #gone > 0 then
  redis.call('HDEL', jobs, unpack(gone))
  redis.call('HDEL', meta, unpack(gone))
  grow(stats, 'dead_bytes', -bytes)
  redis.pcall('HINCRBY', stats, 'purged', #gone)
  archiving.keep(archive, archived, stats, now, tonumber(ARGV[3]), tonumber(ARGV[4]))
  for i, tied in ipairs(bound and redis.call('HMGET', TIES, unpack(gone)) or {}) do
    if tied then untie(gone[i], tied, 'purged', nil, nil, now) end
  end
  keep_groups(now)
end
return #gone
