#!lua flags=allow-oom
-- Removes what was kept long enough, the oldest first: histories, also those over the caps, and remembered ids.
-- KEYS: archive, archived, stats, ids, dead
-- ARGV: ms before which a job ended whose history is too old, history max, history bytes, most to remove of each sort
-- Out:  {histories removed, ids removed}
local archive, archived, stats, ids, dead = unpack(KEYS)
local most = tonumber(ARGV[4])
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({archive, stats}) do redis.call('HLEN', key) end
redis.call('ZCARD', ids)
local old = redis.call('ZRANGE', archived, '-inf', '(' .. ARGV[1], 'BYSCORE', 'LIMIT', 0, most)
local bytes = 0
for _, id in ipairs(old) do bytes = bytes + redis.call('HSTRLEN', archive, id) end
if #old > 0 then
  redis.call('HDEL', archive, unpack(old))
  redis.call('ZREM', archived, unpack(old))
  grow(stats, 'history_bytes', -bytes)
end
local gone = #old + archiving.evict(archive, archived, stats, tonumber(ARGV[2]), tonumber(ARGV[3]), most)
if redis.call('ZCARD', dead) == 0 then redis.pcall('HDEL', stats, 'dead_bytes') end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
-- Score 1 is a reservation.
local past = redis.call('ZRANGE', ids, '(1', now, 'BYSCORE', 'LIMIT', 0, most)
if #past > 0 then redis.call('ZREM', ids, unpack(past)) end
return {gone, #past}
