#!lua flags=allow-oom
-- Moves the entries just peeked out of the inbox, each to where Rust decided, if nobody else took any meanwhile.
-- KEYS: those of lib/ties.lua, taken, workers, jobs, ids, delayed, quarantine, stats, tomb, running, meta, stops, dead,
--       ready x5, flow..., result list...
-- ARGV: incarnation, expected taken, entries, bytes of them, first entry, last entry, quarantine max, quarantine bytes,
--       id window ms, number of entries with ties, number of result lists, then for each flow: its kind, its priority
--       number (1..5),
--       then for each entry: verb, its id or '', arguments
--         a verb is a flow number (from 1) for an entry that may run now, or 'd' or 'q'; followed by 'g' if the app
--         gave the id, and by 't' if it has ties
--         'd' delayed: due ms
--         'q' quarantine: code, reason
--         't' ties: as `ties` has them, perhaps with 'd' as the last of them, which is not kept: the queue made its id, so
--             it is not meant to be another job's; its lock's rule or ''; its group's rule or ''; ms for which its result
--             is kept, number of the result list or 0. After 'q' instead: its group or '', that group's rule or '', and the
--             last two
--         a lock's rule: '<s skip, r replace or m merge>|<ms or 0>|<ms to wait for another one, or 0>|<at most ms, or 0>',
--             and '|t' if something follows; a group's rule: see lib/members.lua
-- Out:  {'ok', now_ms, not admitted, number of each entry that is not, negative if it was set aside...} or {'moved'};
--       error LEASE if not registered
local taken_key, workers, jobs, ids, delayed, quarantine, stats, tomb, running, meta, stops,
  dead = unpack(KEYS, 10, 21)
local FIRST_READY, FIRST_FLOW, HEAD, GIVEN, TIED = 22, 27, 11, string.byte('g'), string.byte('t')
local inbox, n, window = INBOX, tonumber(ARGV[3]), tonumber(ARGV[9])
local flows = #KEYS - FIRST_FLOW + 1 - ARGV[11]
if not redis.call('ZSCORE', workers, ARGV[1]) then return redis.error_reply('LEASE lost') end
if (redis.call('GET', taken_key) or '0') ~= ARGV[2] then return {'moved'} end
local raws = redis.call('LRANGE', inbox, 0, n - 1)
local bytes = 0
for _, raw in ipairs(raws) do bytes = bytes + #raw end
-- A client that pushes at the wrong end moves what was judged, and `taken` does not tell.
if #raws ~= n or bytes ~= tonumber(ARGV[4]) or raws[1] ~= ARGV[5] or raws[n] ~= ARGV[6] then return {'moved'} end

-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({jobs, stats}) do redis.call('HLEN', key) end
for _, key in ipairs({ids, delayed, unpack(KEYS, FIRST_READY, FIRST_FLOW - 1)}) do redis.call('ZCARD', key) end
for k = FIRST_FLOW, FIRST_FLOW + flows - 1 do redis.call('LLEN', KEYS[k]) end
redis.call('XLEN', quarantine)
if tonumber(ARGV[10]) > 0 then
  check_ties()
  for _, key in ipairs({running, meta}) do redis.call('HLEN', key) end
  for _, key in ipairs({stops, dead}) do redis.call('ZCARD', key) end
end
locking.stones = redis.call('HLEN', tomb) > 0

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local payloads, seen, away, counts, admitted = {}, {}, {}, {}, 0

local function count(name) counts[name] = (counts[name] or 0) + 1 end

-- Whether a given id is taken: by a live job, by one remembered, or earlier in this batch.
local function taken(id)
  if seen[id] then return true end
  seen[id] = true
  if redis.call('HEXISTS', jobs, id) == 1 then return true end
  local score = redis.call('ZSCORE', ids, id)
  if not score then return false end
  -- Score 1 is a reservation by the enqueue script, which this very entry redeems.
  if tonumber(score) > 1 and tonumber(score) > now then return true end
  redis.call('ZREM', ids, id)
  return false
end

-- The earliest ready time of an id: after that of the entries which a cancelled job of the same id left behind.
local function earliest(id)
  local stone = locking.stones and redis.call('HGET', tomb, id)
  local at = string.match(stone or '', '^%d+:(%d+)$')
  return at and at + 1 or 0
end

-- The entries for each flow, found by any form of its verb.
local lists, of_verb, with_ties = {}, {}, tonumber(ARGV[10]) > 0
for f = 1, flows do
  lists[f] = {}
  of_verb[tostring(f)], of_verb[f .. 'g'] = lists[f], lists[f]
  if with_ties then of_verb[f .. 't'], of_verb[f .. 'gt'] = lists[f], lists[f] end
end
local stamp, at = string.format('%013d:', now), HEAD + 2 * flows

-- Puts an id where it waits: in a list of its flow, or else among the delayed.
local function place(id, list, due)
  if list then
    list[#list + 1] = locking.stones and string.format('%013d:%s', math.max(now, earliest(id)), id) or stamp .. id
  else
    redis.call('ZADD', delayed, math.max(due, earliest(id)), id)
  end
end

-- Writes what was placed so far.
local function flush()
  if #payloads > 0 then redis.call('HSET', jobs, unpack(payloads)) end
  for f, list in ipairs(lists) do
    if #list > 0 then
      local kind, priority = ARGV[HEAD + 2 * f - 1], tonumber(ARGV[HEAD + 2 * f])
      redis.call('RPUSH', KEYS[FIRST_FLOW + f - 1], unpack(list))
      redis.call('ZADD', KEYS[FIRST_READY + priority - 1], 'NX', now, kind)
      for i = #list, 1, -1 do list[i] = nil end
    end
  end
  payloads = {}
end

locking.jobs, locking.running, locking.dead, locking.delayed = jobs, running, dead, delayed
locking.meta, locking.tomb, locking.now, locking.place, locking.flush = meta, tomb, now, place, flush

-- `group` is the one in which it was counted, if it was.
local function set_aside(raw, code, reason, group, id)
  quarantining.add(quarantine, stats, tonumber(ARGV[7]), tonumber(ARGV[8]), now, code, reason, raw, group, id)
  count('quarantined')
end

-- An entry with ties that is no job of its own: what is told of it, and of whom.
local function turn_away(entry, how, holder)
  if how ~= 'quarantined' then count(how == 'cancelled' and how or 'unique_' .. how) end
  if entry.given and window > 0 and EIGHTHS[how] then redis.call('ZADD', ids, now + window + EIGHTHS[how], entry.id) end
  if entry.result then
    local of = holder and ',"of":"' .. holder .. '"' or ''
    put_result(entry.result, entry.ttl, string.format('{"id":"%s","state":"%s","at":%d%s}', entry.id, how, now, of))
  end
  away[#away + 1] = how == 'quarantined' and -entry.number or entry.number
  -- Whether its id is taken from now on, `ids` says.
  seen[entry.id] = nil
end

-- Takes a member into its group; false if it may not be one.
local function join(entry, rule)
  local name = group_in(entry.tied)
  local how, wrong = joining.join(ids, name, entry.given and entry.id or '', rule, now)
  if how == 'wrong' then
    local counted = joining.refuse(ids, name, entry.given and entry.id or '', rule, 'quarantined', now)
    set_aside(entry.raw, 'malformed', 'group: ' .. name .. ' ' .. wrong, counted and name, entry.given and entry.id)
    turn_away(entry, 'quarantined')
  elseif how then
    turn_away(entry, how)
  end
  return not how
end

-- Whether what an entry belongs to was cancelled.
local function is_stopped(bonds)
  local workflow = string.match('\n' .. bonds, '\nw([^\n]+)')
  return workflow and redis.call('ZSCORE', stops, workflow)
end

-- Ties an entry; false if it is no job of its own then.
local function bind(entry, lock_rule, group_rule)
  if is_stopped(entry.tied) then
    locking.give_up(entry.id, entry.tied)
    if group_rule ~= '' then
      joining.refuse(ids, group_in(entry.tied), entry.given and entry.id or '', group_rule, 'cancelled', now)
    end
    turn_away(entry, 'cancelled')
    return false
  end
  if lock_rule ~= '' then
    local how, holder = locking.take(entry, lock_rule)
    if how then
      if how == 'skipped' and string.sub(lock_rule, -2) == '|t' then count('then_skipped') end
      turn_away(entry, how, holder)
      return false
    end
  end
  if group_rule ~= '' and not join(entry, group_rule) then return false end
  redis.call('HSET', TIES, entry.id, entry.tied .. (entry.given and lock_rule ~= '' and '\ni' or ''))
  return true
end

-- An entry whose id is that of another job. The step of a workflow that the queue itself gave that id is not lost for it.
local function turn_double_away(number, id, bonds, group_rule, made)
  local group = group_rule ~= '' and group_in(bonds)
  local aside = made and not is_stopped(bonds)
  -- A member whose id is that of another job never comes.
  local how = aside and 'quarantined' or 'duplicate'
  local counted = group and joining.refuse(ids, group, id, group_rule, how, now)
  if bonds then locking.give_up(id, bonds) end
  if aside then
    local reason = 'id: ' .. id .. ' is what this step of a workflow is called, and what another job is or was called'
    set_aside(raws[number], 'id_taken', reason, counted and group, id)
  else
    count('duplicates')
  end
  away[#away + 1] = aside and -number or number
end

local function result_list(number) return number ~= '0' and KEYS[FIRST_FLOW + flows - 1 + number] or nil end

for i = 1, n do
  local verb, id = ARGV[at + 1], ARGV[at + 2]
  local list = of_verb[verb]
  local last = string.byte(verb, -1)
  local tied = last == TIED
  local given = last == GIVEN or tied and string.byte(verb, -2) == GIVEN
  if not list and string.sub(verb, 1, 1) == 'q' then
    local reserved = id ~= '' and redis.call('ZSCORE', ids, id) == '1'
    if reserved then redis.call('ZREM', ids, id) end
    local group = tied and ARGV[at + 5] ~= '' and ARGV[at + 5]
    local counted = group and joining.refuse(ids, group, id, ARGV[at + 6], 'quarantined', now)
    set_aside(raws[i], ARGV[at + 3], ARGV[at + 4], counted and group, id)
    at = at + 4
    if tied then
      local list = result_list(ARGV[at + 4])
      -- What came earlier in this batch must be where it is looked for.
      flush()
      if list and redis.call('HEXISTS', jobs, id) == 0 then
        put_result(list, ARGV[at + 3], string.format('{"id":"%s","state":"quarantined","at":%d}', id, now))
      end
      at = at + 4
    end
  else
    local due = not list and tonumber(ARGV[at + 3])
    at = at + (list and 2 or 3)
    local bonds = tied and ARGV[at + 1]
    local made = tied and string.sub(bonds, -2) == '\nd'
    if made then bonds = string.sub(bonds, 1, -3) end
    if given and taken(id) then
      turn_double_away(i, id, bonds, tied and ARGV[at + 3] or '', made)
    else
      local entry = tied and {number = i, raw = raws[i], id = id, given = given, list = list, due = due,
        tied = bonds, ttl = ARGV[at + 4], result = result_list(ARGV[at + 5])}
      if not tied or bind(entry, ARGV[at + 2], ARGV[at + 3]) then
        payloads[#payloads + 1] = id
        payloads[#payloads + 1] = raws[i]
        admitted = admitted + 1
        place(id, list, due)
      end
    end
    if tied then at = at + 5 end
  end
end
flush()
keep_groups(now)
-- Ids whose time of being remembered is over go, at least as fast as new ones come.
if with_ties and #away > 0 then
  local over = redis.call('ZRANGE', ids, '(1', now, 'BYSCORE', 'LIMIT', 0, #away + 16)
  if #over > 0 then redis.call('ZREM', ids, unpack(over)) end
end
redis.call('LTRIM', inbox, n, -1)
redis.call('INCRBY', taken_key, n)
-- A counter that somebody made unusable must not stop the queue.
redis.pcall('HINCRBY', stats, 'admitted', admitted)
for name, by in pairs(counts) do redis.pcall('HINCRBY', stats, name, by) end
return {'ok', now, #away, unpack(away)}
