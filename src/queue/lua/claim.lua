#!lua flags=allow-oom
-- Takes jobs from the given flows in the order of effective class, then place, and puts them under a token. A flow's place
-- is the ready time of its head; one that takes turns keeps its place in line, and is taken from once per turn.
-- KEYS: workers, running, jobs, meta, tomb, delayed, resume, rates, holds, parked, ties, locks, merges,
--       ready x5, flow..., slots...
-- ARGV: incarnation, claim number, limit, ageing ms, number of gates,
--       then for each flow: priority number (1..5), how lists name it, allowance, its gates by number ('f' first: it
--         takes turns), like 'f1,3'
--       then for each gate: letter, name, two numbers
--         's' slots of one key, 'S' of a whole kind: how many, 0; their keys come in the same order
--         'r' rate of one key, 'R' of a whole kind: ms used up by a start, starts at once
-- Out:  {now_ms, next due ms or -1, {place of each flow; -1 empty, -2 parked...}, {flow number, jobs of it in a row, ...},
--       {entry, envelope, ... for each job}, {job number, history, ... where it has one},
--       {job number, its ties, envelopes to be united with its own or '', ... where it has ties},
--       {number of a gate of a whole kind that is shut, until ms or -1, ...}, entries dropped};
--       error LEASE if not registered
local workers, running, jobs, meta, tomb, delayed, resume, rates, holds, parked, ties, locks,
  merges = unpack(KEYS, 1, 13)
local FIRST_READY, FIRST_FLOW, FIRST_ARG = 14, 19, 5
local limit, aging, gate_count = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local flow_count = (#ARGV - FIRST_ARG - 4 * gate_count) / 4
if not redis.call('ZSCORE', workers, ARGV[1]) then return redis.error_reply('LEASE lost') end
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({running, jobs, meta}) do redis.call('HLEN', key) end
for k = FIRST_READY, FIRST_FLOW - 1 do redis.call('ZCARD', KEYS[k]) end
local stoned = redis.call('HLEN', tomb) > 0
local troubled = redis.call('HLEN', meta) > 0
local bound = redis.call('HLEN', ties) > 0
if bound then
  for _, key in ipairs({locks, merges}) do redis.call('HLEN', key) end
end
local next_due = tonumber(redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2] or 1e13)
if redis.call('ZCARD', resume) > 0 then
  next_due = math.min(next_due, tonumber(redis.call('ZRANGE', resume, 0, 0, 'WITHSCORES')[2]))
end
local t = redis.call('TIME')
local exact = t[1] * 1000 + t[2] / 1000
local now = math.floor(exact)

-- What holds for several flows alike, with the room it leaves now.
local gates, slot_key = {}, FIRST_FLOW + flow_count
if gate_count > 0 then
  for _, key in ipairs({holds, parked}) do redis.call('HLEN', key) end
  redis.call('ZCARD', rates)
end
for g = 1, gate_count do
  local at = FIRST_ARG + 4 * flow_count + 4 * (g - 1)
  local letter, first, second = ARGV[at + 1], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local gate = {number = g, name = ARGV[at + 2], wide = letter == string.upper(letter), ids = {}}
  if string.lower(letter) == 's' then
    gate.key = KEYS[slot_key]
    slot_key = slot_key + 1
    gate.room = first - redis.call('SCARD', gate.key)
  else
    -- What is used up of the time ahead; a rate that was made faster is not held to its past, from now on.
    gate.every, gate.burst = first, second
    local used = math.max(tonumber(redis.call('ZSCORE', rates, gate.name) or 0), exact)
    gate.used = math.min(used, exact + first * second)
    gate.cut = used - gate.used >= 1
    gate.room = math.floor(second - (gate.used - exact) / first + 1e-6)
  end
  gate.left = gate.room
  gates[g] = gate
end

local function rank(flow)
  return math.max(1, flow.class - math.floor(math.max(0, now - flow.place) / aging))
end

-- Few entries of each are read at first where there are many flows; of one that takes turns none before its turn.
local flows, line, share, none = {}, {}, math.ceil(limit / flow_count), {}
local function ready_key(class) return KEYS[FIRST_READY + class - 1] end
for f = 1, flow_count do
  local at = FIRST_ARG + (f - 1) * 4
  local flow = {number = f, key = KEYS[FIRST_FLOW + f - 1], class = tonumber(ARGV[at + 1]), member = ARGV[at + 2],
    allow = tonumber(ARGV[at + 3]), gates = none, entries = none, taken = 0}
  local terms = ARGV[at + 4]
  flow.fair = string.sub(terms, 1, 1) == 'f'
  if terms ~= '' and terms ~= 'f' then
    flow.gates = {}
    for g in string.gmatch(terms, '%d+') do flow.gates[#flow.gates + 1] = gates[tonumber(g)] end
  end
  flows[f] = flow
end
local turns = {{}, {}, {}, {}, {}}
for _, flow in ipairs(flows) do
  if flow.fair then
    table.insert(turns[flow.class], flow)
  else
    read_on(flow, math.min(share, flow.allow) + 1)
    flow.place = flow.entries[1] and ready_of(flow.entries[1])
  end
end
for class, fair in ipairs(turns) do
  local members = {}
  for i, flow in ipairs(fair) do members[i] = flow.member end
  for i, place in ipairs(fair[1] and redis.call('ZMSCORE', ready_key(class), unpack(members)) or none) do
    local head = not place and redis.call('LINDEX', fair[i].key, 0)
    fair[i].place = tonumber(place or nil) or (head and ready_of(head))
  end
end
for _, flow in ipairs(flows) do
  if flow.place and flow.allow > 0 then
    flow.rank = rank(flow)
    join(line, 1, flow)
  end
end

-- One job of a flow, whose turn is over then: it stands behind all who wait.
local turn = 0
local function take_turn(flow)
  local entry = redis.call('LPOP', flow.key)
  if entry then
    flow.taken = flow.taken + 1
    if flow.taken == 1 then flow.entries = {entry} else flow.entries[flow.taken] = entry end
  end
  turn = turn + 1
  flow.place = redis.call('LLEN', flow.key) > 0 and exact + turn / 1000
end

-- Whether a cancelled job left this entry behind.
local function left_behind(entry, id)
  local count, at = string.match(redis.call('HGET', tomb, id) or '', '^(%d+):(%d+)$')
  if not count or ready_of(entry) > tonumber(at) then return false end
  if tonumber(count) > 1 then
    redis.call('HSET', tomb, id, string.format('%d:%s', count - 1, at))
  else
    redis.call('HDEL', tomb, id)
  end
  return true
end

-- Of entries just taken from flows: those that are jobs, and the envelopes of these.
local function living(entries)
  local ids, kept, raws = {}, {}, {}
  for i, entry in ipairs(entries) do ids[i] = string.sub(entry, 15) end
  for i, raw in ipairs(redis.call('HMGET', jobs, unpack(ids))) do
    if not (stoned and left_behind(entries[i], ids[i])) and raw then
      kept[#kept + 1] = i
      raws[#kept] = raw
    end
  end
  return kept, raws
end

local picked, origin, raws, count, popped, first = {}, {}, {}, 0, 0, 1
-- What was dropped under a limit is made up for, a few hundred at most.
while count < limit and popped < limit + 256 and line[first] do
  local flow, second = line[first], line[first + 1]
  first = first + 1
  local most = math.min(limit - count, flow.allow)
  for _, gate in ipairs(flow.gates) do
    most = math.min(most, gate.left)
    if gate.left < 1 then flow.shut = flow.shut or gate end
  end
  if not flow.shut then
    local from = flow.taken
    if flow.fair then take_turn(flow) else take(flow, second, most, rank) end
    popped = popped + flow.taken - from
    local kept, found = nil, nil
    if flow.gates[1] then
      kept, found = living({unpack(flow.entries, from + 1, flow.taken)})
      for _, gate in ipairs(flow.gates) do gate.left = gate.left - #kept end
    end
    for i = 1, kept and #kept or flow.taken - from do
      count = count + 1
      picked[count], origin[count], raws[count] = flow.entries[from + (kept and kept[i] or i)], flow, found and found[i]
    end
    flow.allow = flow.allow - (kept and #kept or flow.taken - from)
    if flow.place and flow.allow > 0 then
      flow.rank = rank(flow)
      join(line, first, flow)
    end
  end
end

-- What came of flows without limits is looked at in one go.
local unread = {}
for i, entry in ipairs(picked) do
  if not raws[i] then unread[#unread + 1] = i end
end
if #unread > 0 then
  local entries = picked
  if #unread < count then
    entries = {}
    for n, i in ipairs(unread) do entries[n] = picked[i] end
  end
  local kept, found = living(entries)
  for n, k in ipairs(kept) do raws[unread[k]] = found[n] end
end

local moved, gone = {{}, {}, {}, {}, {}}, {{}, {}, {}, {}, {}}

-- Takes a flow out of line until somebody gives back a slot of its key, or until its rate lets it start again.
local function park(flow, gate)
  table.insert(gone[flow.class], flow.member)
  local line = flow.class .. ':' .. flow.member .. ':'
  if gate.key then
    local listed = redis.call('HGET', parked, gate.name) or ''
    if not string.find('\n' .. listed, '\n' .. line, 1, true) then
      local before = listed == '' and '' or listed .. '\n'
      redis.call('HSET', parked, gate.name, before .. line .. string.format('%.3f', flow.place))
    end
  else
    redis.call('ZADD', resume, gate.next, flow.class .. ':' .. flow.member)
    next_due = math.min(next_due, gate.next)
  end
end

local heads, rows, taken, histories, tied, shut = {}, {}, {}, {}, {}, {}
for _, gate in ipairs(gates) do
  if gate.every then gate.next = math.ceil(gate.used + (gate.room - gate.left) * gate.every - (gate.burst - 1) * gate.every) end
end
for f, flow in ipairs(flows) do
  heads[f] = flow.place and math.floor(flow.place) or -1
  if flow.taken > 0 and not flow.fair then redis.call('LTRIM', flow.key, flow.taken, -1) end
  if not flow.place then
    table.insert(gone[flow.class], flow.member)
  elseif flow.shut and not flow.shut.wide then
    park(flow, flow.shut)
    heads[f] = -2
  elseif flow.taken > 0 then
    table.insert(moved[flow.class], flow.place)
    table.insert(moved[flow.class], flow.member)
  end
  if flow.place and flow.shut and flow.shut.wide and not flow.shut.told then
    local gate = flow.shut
    gate.told = true
    if gate.key then redis.call('HSETNX', parked, gate.name, '') end
    shut[#shut + 1], shut[#shut + 2] = gate.number, gate.next or -1
  end
end
for class = 1, 5 do
  if gone[class][1] then redis.call('ZREM', ready_key(class), unpack(gone[class])) end
  if moved[class][1] then redis.call('ZADD', ready_key(class), unpack(moved[class])) end
end

local ids, at = {}, {}
for i = 1, count do
  if raws[i] then
    ids[#ids + 1] = string.sub(picked[i], 15)
    at[#ids] = i
  end
end
local metas = troubled and #ids > 0 and redis.call('HMGET', meta, unpack(ids)) or {}
local bonds = bound and #ids > 0 and redis.call('HMGET', ties, unpack(ids)) or {}

-- A lock that is held until the claim is given up; what waits to be united with the job is told.
local function tell_ties(id, number, bond)
  for lock in string.gmatch('\n' .. bond, '\nc([^\n]+)') do
    local holder = redis.call('HGET', locks, lock)
    if holder and string.sub(holder, 1, #id + 1) == id .. '|' then redis.call('HDEL', locks, lock) end
  end
  tied[#tied + 1], tied[#tied + 2], tied[#tied + 3] = number, bond, redis.call('HGET', merges, id) or ''
end

local prefix, tokens, held, n, flow = ARGV[1] .. ':' .. ARGV[2] .. ':', {}, {}, 0, nil
for j, id in ipairs(ids) do
  local i = at[j]
  tokens[n + 1], tokens[n + 2] = id, prefix .. string.sub(picked[i], 1, 13)
  taken[n + 1], taken[n + 2] = picked[i], raws[i]
  n = n + 2
  if origin[i] ~= flow then
    flow = origin[i]
    rows[#rows + 1], rows[#rows + 2] = flow.number, 0
  end
  rows[#rows] = rows[#rows] + 1
  if metas[j] then histories[#histories + 1], histories[#histories + 2] = j, metas[j] end
  if bonds[j] then tell_ties(id, j, bonds[j]) end
  if flow.gates[1] then
    local names = {}
    for _, gate in ipairs(flow.gates) do
      if gate.key then
        gate.ids[#gate.ids + 1] = id
        names[#names + 1] = gate.name
      end
    end
    if names[1] then held[#held + 1], held[#held + 2] = id, table.concat(names, '\n') end
  end
end
if n > 0 then redis.call('HSET', running, unpack(tokens)) end
if #held > 0 then redis.call('HSET', holds, unpack(held)) end
for _, gate in ipairs(gates) do
  if gate.ids[1] then redis.call('SADD', gate.key, unpack(gate.ids)) end
  if gate.every and (gate.left < gate.room or gate.cut) then
    redis.call('ZADD', rates, gate.used + (gate.room - gate.left) * gate.every, gate.name)
    -- A rate of which nothing is used up needs no memory.
    local idle = redis.call('ZRANGE', rates, '-inf', now, 'BYSCORE', 'LIMIT', 0, 4)
    if #idle > 0 then redis.call('ZREM', rates, unpack(idle)) end
  end
end

return {now, next_due < 1e13 and math.floor(math.max(next_due, -1)) or -1, heads, rows, taken, histories, tied,
  shut, popped - #ids}
