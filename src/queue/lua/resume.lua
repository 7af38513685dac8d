-- Lets a paused schedule go on. Its record goes too, so that the ticks of the pause are not made up for.
-- KEYS: schedules_paused, ticks, schedules_rev
-- ARGV: name
-- Out:  1 if it was paused, else 0
local paused, ticks, rev = unpack(KEYS)
-- Redis does not roll back: a key of the wrong type must show before the first write.
redis.call('HLEN', ticks)
local revision = redis.call('GET', rev)
if revision and not tonumber(revision) then return redis.error_reply('WRONGTYPE schedules_rev is not a number') end
if redis.call('HDEL', paused, ARGV[1]) == 0 then return 0 end
redis.call('HDEL', ticks, ARGV[1])
redis.call('INCR', rev)
return 1
