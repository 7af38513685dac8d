#!lua flags=allow-oom
-- Ends deliveries, each only if its token is still the one under which the job runs.
-- KEYS: those of lib/ties.lua, workers, running, jobs, meta, delayed, dead, recent, stats, ids, settled, quarantine,
--       cancels, progress, archive, archived, ready x5, flow..., result list...; if slots come free: holds, parked,
--       bell, slots...
-- ARGV: incarnation, batch number (0: not replayed), dead max, dead bytes, recent max, id window ms, quarantine max,
--       quarantine bytes, history max, history bytes, items, '1' if one of them may have told how far it has come,
--       number of result lists, number of slots, number of counters, counter..., how lists name each flow...,
--       then for each item: id, token, verb, arguments
--         a verb is a letter, the number of a counter as a character from '1' on, and perhaps flags
--         'd' finished: record for the ring; flag 'c': cancelled, 'e': expired, else done
--         'e' the same, for a job that had some trouble: record, history
--         'r' again later: delay ms, history
--         'x' dead: history
--         'h' back to where it stood: flow number, priority number, history or '' to leave it
--         'q' quarantine: code, reason
--         flag 'g' of 'd', 'e' and 'x': the id is to be remembered; flag 't' of 'd', 'e', 'x' and 'q': what is told of
--         it, number of its result list or 0; flag 'n' of 'd' and 'e': the envelope that follows
--       then the names of the slots, then pairs: an item, a slot it holds, by number
-- Out:  {'ok' | 'woke' (ok, and who was parked may run) | 'applied' | 'old', now_ms, number of each stale item...};
--       {'wanted', now_ms, number of each item whose end is waited for since its run began...}: nothing was done, its result
--       list is to be declared; error LEASE if not registered
local workers, running, jobs, meta, delayed, dead, recent, stats, ids, settled, quarantine, cancels,
  progress, archive, archived = unpack(KEYS, 10, 24)
local FIRST_READY, FIRST_FLOW, FIRST_COUNTER = 25, 30, 16
local WITH_HISTORY = string.byte('e')
local ARGUMENTS = {d = 1, e = 2, r = 2, x = 1, h = 3, q = 2}
local incarnation, batch, n = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[11])
local dead_max, dead_bytes, recent_max, id_window = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local quarantine_max, quarantine_bytes = tonumber(ARGV[7]), tonumber(ARGV[8])
local history_max, history_bytes = tonumber(ARGV[9]), tonumber(ARGV[10])
local told, slots, first_kind = ARGV[12] == '1', tonumber(ARGV[14]), FIRST_COUNTER + tonumber(ARGV[15])
local first_slot = #KEYS - slots + 1
local before_slots = slots > 0 and first_slot - 4 or #KEYS
local holds, parked, bell = KEYS[before_slots + 1], KEYS[before_slots + 2], KEYS[before_slots + 3]
local flows = before_slots - FIRST_FLOW + 1 - ARGV[13]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if not redis.call('ZSCORE', workers, incarnation) then return redis.error_reply('LEASE lost') end
if batch > 0 then
  local last = redis.call('HGET', settled, incarnation)
  if last then
    local number, listed = string.match(last, '^(%d+)|(.*)$')
    if tonumber(number) > batch then return {'old', now} end
    if tonumber(number) == batch then
      local out = {'applied', now}
      for i in string.gmatch(listed, '%d+') do out[#out + 1] = tonumber(i) end
      return out
    end
  end
end

-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({jobs, meta, stats, settled}) do redis.call('HLEN', key) end
for _, key in ipairs({delayed, dead, ids, unpack(KEYS, FIRST_READY, FIRST_FLOW - 1)}) do redis.call('ZCARD', key) end
for k = FIRST_FLOW, FIRST_FLOW + flows - 1 do redis.call('LLEN', KEYS[k]) end
for k = first_slot, #KEYS do redis.call('SCARD', KEYS[k]) end
if slots > 0 then
  for _, key in ipairs({holds, parked}) do redis.call('HLEN', key) end
end
redis.call('LLEN', recent)
redis.call('XLEN', quarantine)
if told then redis.call('HLEN', progress) end
local asked = redis.call('HLEN', cancels) > 0
local bound = redis.call('HLEN', TIES) > 0
if bound then check_ties() end

local wanted, starts, start, letters, listed = {}, {}, first_kind + flows, {}, {}
for i = 1, n do
  wanted[i], starts[i] = ARGV[start], start
  local verb = ARGV[start + 2]
  local letter = string.sub(verb, 1, 1)
  letters[letter] = true
  start = start + 3 + ARGUMENTS[letter]
  if #verb > 2 then
    if string.find(verb, 't', 3, true) then
      listed[i] = ARGV[start + 1] ~= '0'
      start = start + 2
    end
    if string.find(verb, 'n', 3, true) then
      start = start + 1
      redis.call('LLEN', INBOX)
    end
  end
end
if asked or letters.e or letters.x or letters.q then
  redis.call('HLEN', archive)
  redis.call('ZCARD', archived)
end
local held = redis.call('HMGET', running, unpack(wanted))
local late = {}
for i, tied in ipairs(bound and redis.call('HMGET', TIES, unpack(wanted)) or {}) do
  local verb = ARGV[starts[i] + 2]
  if tied and not listed[i] and held[i] == ARGV[starts[i] + 1] and not string.find(verb, '^[rh]')
    and string.find('\n' .. tied, '\nr%d') then late[#late + 1] = i end
end
if #late > 0 then return {'wanted', now, unpack(late)} end
local stale, ended, over_now, finished, with_meta, records, counts = {}, {}, {}, {}, {}, {}, {}
local handed_back, remembered, not_again, lost, ended_item, died, over, follow = {}, {}, {}, {}, {}, 0, {}, {}

-- The event of an operator's wish to end this job, if there was one.
local function wish(id)
  return asked and redis.call('HGET', cancels, id) or ''
end

-- What each verb does with a job that is still under its token; its arguments start at `at`.
local act = {}

-- The job is over: what it is tied to is let go of below, all at once.
local function ended_as(how, id, at, verb)
  at = at + ARGUMENTS[string.sub(verb, 1, 1)]
  local noted = string.find(verb, 't', 3, true)
  local list = noted and tonumber(ARGV[at + 1]) or 0
  over[#over + 1] = {id, how, noted and ARGV[at], list > 0 and KEYS[FIRST_FLOW + flows - 1 + list] or nil}
  if string.find(verb, 'n', 3, true) then follow[#follow + 1] = ARGV[noted and at + 2 or at] end
  if string.find(verb, 'g', 3, true) then remembered[#remembered + 1] = {id, EIGHTHS[how]} end
end

function act.d(id, at, verb)
  finished[#finished + 1] = id
  records[#records + 1] = ARGV[at]
  -- By far the most: nothing is said of it but that it is done.
  if #verb == 2 and not asked and string.byte(verb, 1) ~= WITH_HISTORY then
    if bound then over[#over + 1] = {id, 'done'} end
    return
  end
  local how = string.find(verb, 'c', 3, true) and 'cancelled' or string.find(verb, 'e', 3, true) and 'expired' or 'done'
  ended_as(how, id, at, verb)
  local wished = wish(id)
  if string.byte(verb, 1) == WITH_HISTORY then
    with_meta[#with_meta + 1] = id
    archiving.note(id, ARGV[at], ARGV[at + 1], wished)
  elseif wished ~= '' then
    archiving.note(id, ARGV[at], nil, wished)
  end
end
act.e = act.d

function act.r(id, at)
  redis.call('ZADD', delayed, now + ARGV[at], id)
  redis.call('HSET', meta, id, ARGV[at + 1])
end

function act.x(id, at, verb)
  local wished = wish(id)
  redis.call('HSET', meta, id, wished == '' and ARGV[at] or ARGV[at] .. '\t' .. wished)
  redis.call('ZADD', dead, now, id)
  died = died + dead_size(jobs, meta, id)
  ended_as('dead', id, at, verb)
end

function act.h(id, at, _, token)
  local f = tonumber(ARGV[at])
  local back = handed_back[f]
  if not back then back = {ready = KEYS[FIRST_READY + tonumber(ARGV[at + 1]) - 1]}; handed_back[f] = back end
  back[#back + 1] = string.format('%013d:%s', string.match(token, ':(%d+)$') or now, id)
  if ARGV[at + 2] ~= '' then redis.call('HSET', meta, id, ARGV[at + 2]) end
end

function act.q(id, at, verb)
  local raw = redis.call('HGET', jobs, id) or ''
  local group = bound and group_in(redis.call('HGET', TIES, id) or '')
  quarantining.add(quarantine, stats, quarantine_max, quarantine_bytes, now, ARGV[at], ARGV[at + 1], raw, group, id)
  for more in bound and merged_into(id) or function() end do
    quarantining.add(quarantine, stats, quarantine_max, quarantine_bytes, now, ARGV[at], ARGV[at + 1], more)
  end
  if group then mark_refused(ids, group, id, now) end
  local history = redis.call('HGET', meta, id)
  if history then
    local event = string.format('{"at":%.0f,"event":"quarantined"}', now)
    archiving.note(id, archiving.record(id, 'quarantined', now), history, event)
  end
  finished[#finished + 1] = id
  with_meta[#with_meta + 1] = id
  ended_as('quarantined', id, at, verb)
end

for i = 1, n do
  local id, at = wanted[i], starts[i]
  local token, verb = ARGV[at + 1], ARGV[at + 2]
  if held[i] ~= token or over_now[id] then
    stale[#stale + 1] = i
    if not held[i] then lost[#lost + 1] = id end
  else
    ended[#ended + 1] = id
    over_now[id], ended_item[i] = true, true
    local letter = string.sub(verb, 1, 1)
    act[letter](id, at + 3, verb, token)
    if asked and letter ~= 'r' and letter ~= 'h' then not_again[#not_again + 1] = id end
    local counter = string.byte(verb, 2)
    counts[counter] = (counts[counter] or 0) + 1
  end
end

for f, back in pairs(handed_back) do
  put_back(KEYS[FIRST_FLOW + f - 1], back.ready, ARGV[first_kind + f - 1], back)
end
if #ended > 0 then redis.call('HDEL', running, unpack(ended)) end
for _, ids_told in ipairs(told and {ended, lost} or {}) do
  if #ids_told > 0 then redis.call('HDEL', progress, unpack(ids_told)) end
end
-- A request to end a job outlives a delivery that did not end it.
if #not_again > 0 then redis.call('HDEL', cancels, unpack(not_again)) end
if #finished > 0 then redis.call('HDEL', jobs, unpack(finished)) end
if #with_meta > 0 then redis.call('HDEL', meta, unpack(with_meta)) end
if #records > 0 and recent_max > 0 then
  redis.call('LPUSH', recent, unpack(records))
  redis.call('LTRIM', recent, 0, recent_max - 1)
end
for counter, count in pairs(counts) do
  redis.pcall('HINCRBY', stats, ARGV[FIRST_COUNTER + counter - string.byte('1')], count)
end
-- The dead set is bounded by count and bytes: the oldest give way, at most a few hundred per call.
local dropped = {}
if died > 0 then
  local excess, bytes = redis.call('ZCARD', dead) - dead_max, grow(stats, 'dead_bytes', died)
  while (excess > 0 or bytes > dead_bytes) and #dropped < 500 do
    local id = redis.call('ZPOPMIN', dead)[1]
    if not id then break end
    excess, bytes = excess - 1, grow(stats, 'dead_bytes', -dead_size(jobs, meta, id))
    dropped[#dropped + 1] = id
  end
end
if #dropped > 0 then
  local event = string.format('{"at":%.0f,"event":"dropped","note":"too many dead jobs"}', now)
  for i, history in ipairs(redis.call('HMGET', meta, unpack(dropped))) do
    archiving.note(dropped[i], archiving.record(dropped[i], 'dropped', now), history, event)
  end
  redis.call('HDEL', jobs, unpack(dropped))
  redis.call('HDEL', meta, unpack(dropped))
  redis.pcall('HINCRBY', stats, 'dead_dropped', #dropped)
end
archiving.keep(archive, archived, stats, now, history_max, history_bytes)
-- Ids whose time of being remembered is over go, at least as fast as new ones come.
if #remembered > 0 and id_window > 0 then
  for _, item in ipairs(remembered) do redis.call('ZADD', ids, now + id_window + item[2], item[1]) end
  local past = redis.call('ZRANGE', ids, '(1', now, 'BYSCORE', 'LIMIT', 0, #remembered + 16)
  if #past > 0 then redis.call('ZREM', ids, unpack(past)) end
end
-- Lets go of the ties of each: its id, how it ended, what is told of it, and where.
local function untie_all(items)
  local names = {}
  for i, item in ipairs(items) do names[i] = item[1] end
  for i, tied in ipairs(#names > 0 and redis.call('HMGET', TIES, unpack(names)) or {}) do
    if tied then untie(items[i][1], tied, items[i][2], items[i][3], items[i][4], now) end
  end
end

if bound then
  untie_all(over)
  for _, item in ipairs(id_window > 0 and remembered or {}) do
    local group = member_of[item[1]]
    if group then mark_member(ids, group, item[1], now + id_window + item[2]) end
  end
  -- One that died just now may give way at once: what its death left of its ties goes then.
  for i, id in ipairs(dropped) do dropped[i] = {id, 'purged'} end
  untie_all(dropped)
  keep_groups(now)
end
for _, envelope in ipairs(follow) do redis.call('RPUSH', INBOX, envelope) end
-- The slots of what ended come free.
local freed, woke = {}, false
for at = start + slots, #ARGV, 2 do
  local item, slot = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  if ended_item[item] then
    freed[slot] = freed[slot] or {}
    freed[slot][#freed[slot] + 1] = wanted[item]
  end
end
for slot, holders in pairs(freed) do
  redis.call('SREM', KEYS[first_slot + slot - 1], unpack(holders))
  redis.call('HDEL', holds, unpack(holders))
  woke = wake(parked, ARGV[start + slot - 1], FIRST_READY) or woke
end
-- Not every user may publish; looks find the same.
if woke then redis.pcall('PUBLISH', bell, incarnation) end
if batch > 0 then redis.call('HSET', settled, incarnation, batch .. '|' .. table.concat(stale, ',')) end
return {woke and 'woke' or 'ok', now, unpack(stale)}
