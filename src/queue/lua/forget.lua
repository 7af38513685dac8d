#!lua flags=allow-oom
-- Removes histories that are kept long enough, and those over the caps, the oldest first.
-- KEYS: archive, archived, stats
-- ARGV: ms before which a job ended whose history is too old, history max, history bytes, most to remove of either sort
-- Out:  number removed
local archive, archived, stats = unpack(KEYS)
redis.call('HLEN', archive)
redis.call('HLEN', stats)
local old = redis.call('ZRANGE', archived, '-inf', '(' .. ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[4])
local bytes = 0
for _, id in ipairs(old) do bytes = bytes + redis.call('HSTRLEN', archive, id) end
if #old > 0 then
  redis.call('HDEL', archive, unpack(old))
  redis.call('ZREM', archived, unpack(old))
  grow(stats, 'history_bytes', -bytes)
end
return #old + archiving.evict(archive, archived, stats, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]))
