#!lua flags=allow-oom
-- Moves due jobs from the delayed set to the tails of their flows, or to a later time, and puts flows in line again whose
-- rate lets them start.
-- Who comes second changes nothing.
-- KEYS: those of lib/ties.lua, workers, delayed, jobs, meta, quarantine, stats, tomb, archive, archived, resume, ids,
--       ready x5, flow..., result list...
-- ARGV: incarnation, quarantine max, quarantine bytes, history max, history bytes, items, flows,
--       then for each: id, score as read, flow number, priority number; then the kind of each flow.
--       Flow number 0: it is no job, or its time is none, and goes to quarantine; the next result list is its own
--       Flow number -1: it is due at the time that stands for the priority, ms
-- Out:  {number of each item that is not due at that score any more...}; error LEASE if not registered
local workers, delayed, jobs, meta, quarantine, stats, tomb, archive, archived, resume, ids = unpack(KEYS, 10, 20)
local FIRST_READY, FIRST_FLOW, HEAD, RESUMED = 21, 26, 7, 256
local n, flows, lists, gone = tonumber(ARGV[6]), tonumber(ARGV[7]), 0, {}
if not redis.call('ZSCORE', workers, ARGV[1]) then return redis.error_reply('LEASE lost') end
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({jobs, meta, stats}) do redis.call('HLEN', key) end
for k = FIRST_READY, FIRST_FLOW - 1 do redis.call('ZCARD', KEYS[k]) end
for k = FIRST_FLOW, FIRST_FLOW + flows - 1 do redis.call('LLEN', KEYS[k]) end
redis.call('XLEN', quarantine)
redis.call('HLEN', archive)
redis.call('ZCARD', archived)
redis.call('ZCARD', resume)
redis.call('ZCARD', ids)
local stones = redis.call('HLEN', tomb) > 0
local bound = redis.call('HLEN', TIES) > 0
if bound then check_ties() end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local function set_aside(id, score, result)
  local raw = redis.call('HGET', jobs, id)
  if not raw then return end
  local tied = bound and redis.call('HGET', TIES, id)
  local group = group_in(tied or '')
  local reason = 'stored as delayed until ' .. score .. ', which is no time, or with an envelope that is none'
  local max, max_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
  quarantining.add(quarantine, stats, max, max_bytes, now, 'malformed', reason, raw, group, id)
  for more in tied and merged_into(id) or function() end do
    quarantining.add(quarantine, stats, max, max_bytes, now, 'malformed', reason, more)
  end
  if group then mark_refused(ids, group, id, now) end
  local history = redis.call('HGET', meta, id)
  if history then
    local event = string.format('{"at":%.0f,"event":"quarantined"}', now)
    archiving.note(id, archiving.record(id, 'quarantined', now), history, event)
  end
  redis.call('HDEL', jobs, id)
  redis.call('HDEL', meta, id)
  redis.pcall('HINCRBY', stats, 'quarantined', 1)
  if tied then untie(id, tied, 'quarantined', nil, result, now) end
end

-- The ready time of a job: after that of the entries which a cancelled one of the same id left behind, even if the clock
-- stepped back since.
local function ready_at(id, score)
  local stone = stones and redis.call('HGET', tomb, id)
  local at = string.match(stone or '', '^%d+:(%d+)$')
  return math.max(score, at and at + 1 or 0)
end

for i = 1, n do
  local at = HEAD + (i - 1) * 4
  local id, score, f, p, result = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), nil
  if f == 0 then
    result = KEYS[FIRST_FLOW + flows + lists]
    lists = lists + 1
  end
  if redis.call('ZSCORE', delayed, id) ~= score then
    gone[#gone + 1] = i
  elseif f < 0 then
    redis.call('ZADD', delayed, p, id)
  else
    redis.call('ZREM', delayed, id)
    if f > 0 then
      local ready = ready_at(id, tonumber(score))
      redis.call('RPUSH', KEYS[FIRST_FLOW + f - 1], string.format('%013d:%s', ready, id))
      redis.call('ZADD', KEYS[FIRST_READY + p - 1], 'NX', ready, ARGV[HEAD + n * 4 + f])
    else
      set_aside(id, score, result)
    end
  end
end
keep_groups(now)
archiving.keep(archive, archived, stats, now, tonumber(ARGV[4]), tonumber(ARGV[5]))
local resumed = redis.call('ZRANGE', resume, '-inf', now, 'BYSCORE', 'LIMIT', 0, RESUMED, 'WITHSCORES')
for i = 1, #resumed, 2 do
  local class, member = string.match(resumed[i], '^([1-5]):(.*)$')
  if class then redis.call('ZADD', KEYS[FIRST_READY + class - 1], 'LT', resumed[i + 1], member) end
  redis.call('ZREM', resume, resumed[i])
end
return gone
