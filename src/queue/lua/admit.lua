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
--         't' ties: as `ties` has them; its lock's rule or ''; its group's rule or ''; ms for which its result is kept,
--             number of the result list or 0. The last two stand alone after 'q'
--         a lock's rule: '<s skip, r replace or m merge>|<ms or 0>|<ms to wait for another one, or 0>|<at most ms, or 0>'
--         a group's rule: '<size>|<s success or a always>|<what follows, without its last brace, or nothing>'
-- Out:  {'ok', now_ms, not admitted, number of each entry that is not...} or {'moved'}; error LEASE if not registered
local taken_key, workers, jobs, ids, delayed, quarantine, stats, tomb, running, meta, stops,
  dead = unpack(KEYS, 10, 21)
local FIRST_READY, FIRST_FLOW, HEAD, GIVEN, TIED = 22, 27, 11, string.byte('g'), string.byte('t')
local MERGE_MAX = 262144
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
local stones = redis.call('HLEN', tomb) > 0

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
  local stone = stones and redis.call('HGET', tomb, id)
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
    list[#list + 1] = stones and string.format('%013d:%s', math.max(now, earliest(id)), id) or stamp .. id
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

local function set_aside(raw, code, reason)
  quarantining.add(quarantine, stats, tonumber(ARGV[7]), tonumber(ARGV[8]), now, code, reason, raw)
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
  away[#away + 1] = entry.number
  -- Whether its id is taken from now on, `ids` says.
  seen[entry.id] = nil
end

-- Takes a member into its group; false if it may not be one.
local function join(entry, name, rule)
  local size, when, follows = string.match(rule, '^(%d+)|(%a)|(.*)$')
  local group = group_of(name)
  if not group then
    group = {size = tonumber(size), when = when, members = 0, done = 0, failed = 0, state = 'o'}
    groups[name] = group
  end
  if group.state == 'c' then
    turn_away(entry, 'cancelled')
    return false
  end
  local wrong = group.size ~= tonumber(size) and 'was begun with size ' .. group.size
    or group.members >= group.size and 'has all its ' .. group.size .. ' members already'
  if wrong then
    set_aside(entry.raw, 'malformed', 'group: ' .. name .. ' ' .. wrong)
    turn_away(entry, 'quarantined')
    return false
  end
  group.members = group.members + 1
  group.changed = true
  if follows ~= '' then redis.call('HSETNX', GROUP_THEN, name, follows) end
  return true
end

-- The waiting holder of a lock takes over what an entry says.
local function replace(entry, holder, first, wait, most)
  local due = entry.due
  if wait > 0 then
    due = now + wait
    if most > 0 then due = math.min(due, first + most) end
  end
  redis.call('HSET', jobs, holder, entry.raw)
  redis.call('HDEL', meta, holder)
  -- Results that somebody waits for are still told of the holder, and its id is still its own.
  local before, tied = redis.call('HGET', TIES, holder) or '', entry.tied
  local asked = string.match('\n' .. before, '\n(r%d+)')
  if asked and not string.find(tied, '\nr%d') then tied = tied .. '\n' .. asked end
  if id_was_given(before) then tied = tied .. '\ni' end
  redis.call('HSET', TIES, holder, tied)
  -- One that was put off for as long as it may be keeps its place.
  if wait > 0 and due <= now then return end
  if redis.call('ZREM', delayed, holder) == 0 then
    lay_stone(tomb, holder, now)
    stones = true
  end
  place(holder, entry.list, due)
end

-- Writes down who holds a lock, and until when.
local function hold(name, id, letter, gone, first, held)
  redis.call('HSET', LOCKS, name, string.format('%s|%s|%d|%d', id, letter, gone, first))
  if letter == 't' then
    redis.call('ZADD', LOCK_ENDS, gone, name)
  elseif held == 't' then
    redis.call('ZREM', LOCK_ENDS, name)
  end
end

-- The lock among the ties of a job.
local function lock_of(tied) return string.match('\n' .. (tied or ''), '\n[fct]([^\n]+)') end

-- Takes the lock of an entry; false if the holder stands for it.
local function lock(entry, name, letter, rule)
  local action, ttl, wait, most = string.match(rule, '^(%a)|(%d+)|(%d+)|(%d+)$')
  wait, most = tonumber(wait), tonumber(most)
  local gone = tonumber(ttl) > 0 and now + ttl or 0
  local holder, held, ends, first = string.match(redis.call('HGET', LOCKS, name) or '', '^([^|]*)|(%a)|(%d+)|(%d+)$')
  if holder and holder ~= entry.id and (ends == '0' or tonumber(ends) > now) then
    -- What came earlier in this batch must be where it is looked for.
    flush()
    -- Dead ones stand for nobody, and a reservation may bear the id of another job.
    local lives = redis.call('HEXISTS', jobs, holder) == 1 and not redis.call('ZSCORE', dead, holder)
      and lock_of(redis.call('HGET', TIES, holder)) == name
    if lives and action == 'r' and redis.call('HEXISTS', running, holder) == 0 then
      replace(entry, holder, tonumber(first), wait, most)
      -- From now on it is held as the new one asks.
      if held ~= letter then hold(name, holder, letter, gone, first, held) end
      turn_away(entry, 'replaced', holder)
      return false
    end
    if lives and action == 'm' and redis.call('HEXISTS', running, holder) == 0 then
      local before = redis.call('HGET', MERGES, holder)
      if #(before or '') + #entry.raw < MERGE_MAX then
        redis.call('HSET', MERGES, holder, before and before .. ',' .. entry.raw or entry.raw)
        turn_away(entry, 'merged', holder)
        return false
      end
    elseif lives or held == 't' then
      turn_away(entry, 'skipped', holder)
      return false
    end
  end
  hold(name, entry.id, letter, gone, now, held)
  if letter == 't' then
    for _, old in ipairs(redis.call('ZRANGE', LOCK_ENDS, '-inf', now, 'BYSCORE', 'LIMIT', 0, 16)) do
      -- The enqueue script may have reserved it for another job since.
      local ends = string.match(redis.call('HGET', LOCKS, old) or '', '|t|(%d+)|%d+$')
      if ends and tonumber(ends) <= now then redis.call('HDEL', LOCKS, old) end
      redis.call('ZREM', LOCK_ENDS, old)
    end
  end
  return true
end

-- The enqueue script reserves the lock of an entry. One that is no job of its own must not leave it behind, unless the
-- job of that id holds it, or holds it no more but until its time is over.
local function give_up_reservation(id, tied)
  local name = lock_of(tied)
  local held = name and redis.call('HGET', LOCKS, name)
  if not held or string.sub(held, 1, #id + 3) ~= id .. '|f|' then return end
  if lock_of(redis.call('HGET', TIES, id)) ~= name then redis.call('HDEL', LOCKS, name) end
end

-- Ties an entry; false if it is no job of its own then.
local function bind(entry, lock_rule, group_rule)
  local workflow = string.match('\n' .. entry.tied, '\nw([^\n]+)')
  if workflow and redis.call('ZSCORE', stops, workflow) then
    give_up_reservation(entry.id, entry.tied)
    turn_away(entry, 'cancelled')
    return false
  end
  if lock_rule ~= '' then
    local letter, name = string.match('\n' .. entry.tied, '\n([fct])([^\n]+)')
    if not lock(entry, name, letter, lock_rule) then return false end
  end
  if group_rule ~= '' and not join(entry, string.match('\n' .. entry.tied, '\ng([^\n]+)'), group_rule) then
    return false
  end
  redis.call('HSET', TIES, entry.id, entry.tied .. (entry.given and lock_rule ~= '' and '\ni' or ''))
  return true
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
    set_aside(raws[i], ARGV[at + 3], ARGV[at + 4])
    at = at + 4
    if tied then
      if redis.call('HEXISTS', jobs, id) == 0 then
        local outcome = string.format('{"id":"%s","state":"quarantined","at":%d}', id, now)
        put_result(result_list(ARGV[at + 2]), ARGV[at + 1], outcome)
      end
      at = at + 2
    end
  else
    local due = not list and tonumber(ARGV[at + 3])
    at = at + (list and 2 or 3)
    if given and taken(id) then
      away[#away + 1] = i
      count('duplicates')
      if tied then give_up_reservation(id, ARGV[at + 1]) end
    else
      local entry = tied and {number = i, raw = raws[i], id = id, given = given, list = list, due = due,
        tied = ARGV[at + 1], ttl = ARGV[at + 4], result = result_list(ARGV[at + 5])}
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
