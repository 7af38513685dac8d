-- Serves ticks of schedules: each record moves on and the jobs of its ticks go to the inbox in one step, by one caller.
-- KEYS: ticks, schedules_rev, inbox, stats
-- ARGV: revision as read ('' for none), schedules (at most 256), then for each: name, record as read ('' for none), new
--       record, its latest tick ms (0: it serves none), ticks passed over, entries (at most 500), entry...
-- Out:  {'changed'}, and nothing is done, if schedules were added, removed, paused or resumed since the revision; else
--       {now_ms, then for each: 'served', 'early' (its latest tick is not due), or 'moved' (the record is another one);
--       its record or ''}
local ticks, rev, inbox, stats = unpack(KEYS)
local served, passed_over, at = 0, 0, 2
if (redis.call('GET', rev) or '') ~= ARGV[1] then return {'changed'} end
-- Redis does not roll back: a key of the wrong type must show before the first write.
redis.call('HLEN', ticks)
redis.call('LLEN', inbox)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = {now}
for _ = 1, tonumber(ARGV[2]) do
  local name, record, new, latest = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])
  local over, entries = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local stored = redis.call('HGET', ticks, name) or ''
  local answer = stored ~= record and 'moved' or latest > now and 'early' or 'served'
  if answer == 'served' then
    redis.call('HSET', ticks, name, new)
    if entries > 0 then redis.call('RPUSH', inbox, unpack(ARGV, at + 7, at + 6 + entries)) end
    served, passed_over, stored = served + entries, passed_over + over, new
  end
  out[#out + 1], out[#out + 2] = answer, stored
  at = at + 6 + entries
end
if served > 0 then redis.pcall('HINCRBY', stats, 'ticks', served) end
if passed_over > 0 then redis.pcall('HINCRBY', stats, 'ticks_passed_over', passed_over) end
return out
