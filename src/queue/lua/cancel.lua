#!lua flags=allow-oom
-- Ends a job that waits; asks for the end of one that runs.
-- KEYS: those of lib/ties.lua, jobs, running, delayed, dead, tomb, cancels, ids, meta, recent, stats, bell, archive,
--       archived, result list
-- ARGV: id, record for the ring, '1' if its envelope gives the id, id window ms, recent max, history of a job that has
--       none, event if it waits, event if it runs, history max, history bytes, and if it is to be ended only in
--       that state: 'pending' or 'delayed'
-- Out:  'cancelled', 'asked' (it runs; its daemon is told), or its state: 'dead', 'unknown',
--       or 'changed' if it is not in the state wanted
local jobs, running, delayed, dead, tomb, cancels, ids, meta, recent, stats, bell, archive, archived,
  result = unpack(KEYS, 10)
local id = ARGV[1]
if redis.call('HEXISTS', jobs, id) == 0 then return 'unknown' end
if redis.call('ZSCORE', dead, id) then return 'dead' end
if ARGV[11] then
  local state = redis.call('HEXISTS', running, id) == 1 and 'running'
    or redis.call('ZSCORE', delayed, id) and 'delayed' or 'pending'
  if state ~= ARGV[11] then return 'changed' end
end
if redis.call('HEXISTS', running, id) == 1 then
  -- Its end takes the event in.
  redis.call('HSET', cancels, id, ARGV[8])
  -- Not every user may publish; a look finds the request all the same.
  redis.pcall('PUBLISH', bell, 'look')
  return 'asked'
end
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({cancels, meta, tomb, stats, archive}) do redis.call('HLEN', key) end
for _, key in ipairs({delayed, ids, archived}) do redis.call('ZCARD', key) end
redis.call('LLEN', recent)
if redis.call('HLEN', TIES) > 0 then check_ties() end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if redis.call('ZREM', delayed, id) == 0 then lay_stone(tomb, id, now) end
redis.call('HDEL', cancels, id)
redis.call('HDEL', jobs, id)
archiving.note(id, ARGV[2], redis.call('HGET', meta, id) or ARGV[6], ARGV[7])
redis.call('HDEL', meta, id)
archiving.keep(archive, archived, stats, now, tonumber(ARGV[9]), tonumber(ARGV[10]))
local tied = redis.call('HGET', TIES, id)
local until_ms = (ARGV[3] == '1' or id_was_given(tied or '')) and tonumber(ARGV[4]) > 0
  and now + ARGV[4] + EIGHTHS.cancelled
if until_ms then redis.call('ZADD', ids, until_ms, id) end
if tonumber(ARGV[5]) > 0 then
  redis.call('LPUSH', recent, ARGV[2])
  redis.call('LTRIM', recent, 0, ARGV[5] - 1)
end
if tied then
  untie(id, tied, 'cancelled', nil, result, now)
  if until_ms and member_of[id] then mark_member(ids, member_of[id], id, until_ms) end
  keep_groups(now)
end
redis.pcall('HINCRBY', stats, 'cancelled', 1)
return 'cancelled'
