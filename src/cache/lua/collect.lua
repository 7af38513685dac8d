-- collect: forgets invalidations that no living entry can need, and the oldest beyond the cap.
-- The floor is raised first; what is at or below it can then go, for entries stamped below it miss anyway.
-- KEYS     those of open.lua
-- ARGV     1-3 those of open.lua
--          4 longest time to live of an entry, ms
--          5 most members the log may have
--          6 most members removed by this call
-- Returns  { seq, epoch, members removed, members still to be removed }
-- Bound    O(log n + members removed)
local seq, epoch = open()
local max_ttl, cap, step = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- About 32 marks within one max_ttl say which seq had been reached by when.
local newest = redis.call('ZRANGE', KEYS[5], -1, -1, 'WITHSCORES')
if not newest[1] or now - tonumber(newest[2]) >= max_ttl / 32 then
  redis.call('ZADD', KEYS[5], 'NX', now, seq)
end

local floor = tonumber(redis.call('GET', KEYS[3]))
local aged = redis.call('ZRANGE', KEYS[5], now - max_ttl, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)
if aged[1] then
  floor = math.max(floor, tonumber(aged[1]))
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now - max_ttl)
end
local over = redis.call('ZCARD', KEYS[2]) - 1 - cap
if over > 0 then
  local last_out = redis.call('ZRANGE', KEYS[2], over - 1, over - 1, 'WITHSCORES')
  floor = math.max(floor, tonumber(last_out[2]))
end
redis.call('SET', KEYS[3], string.format('%.0f', floor))

-- By rank, for a range of scores can't be limited. The sentinel scores inf and is never among them.
local dead = redis.call('ZCOUNT', KEYS[2], '-inf', floor)
local removed = math.min(dead, step)
if removed > 0 then
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, removed - 1)
end
return { seq, epoch, removed, dead - removed }
