-- Adds what one daemon did to the history of the fleet's load, once per batch, and tells who else writes it.
-- KEYS: writers, day...
-- ARGV: daemon, number of its batch, its slots, ms after which a silent daemon does not count, ms a day is kept,
--       then for each figure: number of its day from 1, its place in bits, what is added
-- Out:  {Redis ms, daemons that write, their slots in all}
local writers, silent, FIRST, FORGOTTEN, MOST = KEYS[1], tonumber(ARGV[4]), 6, 3600000, 1000
-- Redis does not roll back: a key of the wrong type must show before the first write.
redis.call('HLEN', writers)
for k = 2, #KEYS do redis.call('STRLEN', KEYS[k]) end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local last = tonumber(string.match(redis.call('HGET', writers, ARGV[1]) or '', '^(%d+):')) or 0
if tonumber(ARGV[2]) > last then
  for i = FIRST, #ARGV, 3 do
    redis.call('BITFIELD', KEYS[ARGV[i] + 1], 'OVERFLOW', 'SAT', 'INCRBY', 'i64', ARGV[i + 1], ARGV[i + 2])
  end
  for k = 2, #KEYS do redis.call('PEXPIRE', KEYS[k], ARGV[5]) end
  last = ARGV[2]
end
-- More than so many are no fleet of ours: then the list is begun anew.
if redis.call('HLEN', writers) > MOST then redis.call('DEL', writers) end
redis.call('HSET', writers, ARGV[1], string.format('%s:%.0f:%s', last, now, ARGV[3]))
redis.call('PEXPIRE', writers, FORGOTTEN)
local known, daemons, slots = redis.call('HGETALL', writers), 0, 0
for i = 1, #known, 2 do
  local at, its = string.match(known[i + 1], '^%d+:(%d+):(%d+)$')
  local age = now - (tonumber(at) or 0)
  if age > FORGOTTEN then
    redis.call('HDEL', writers, known[i])
  elseif age <= silent then
    daemons, slots = daemons + 1, slots + tonumber(its)
  end
end
return {now, daemons, slots}
