#!lua flags=allow-oom
-- Takes jobs from the given flows in the order of effective class, then place, and puts them under a token. A flow's place
-- is the ready time of its head; one that takes turns keeps its place in line, and is taken from once per turn.
-- KEYS: workers, running, jobs, meta, tomb, delayed, resume, rates, holds, parked, ties, locks, merges,
--       ready x5, flow..., slots...
-- ARGV: incarnation, claim number, limit, ageing ms, number of gates,
--       then for each flow: priority number (1..5), how lists name it, allowance, its gates by number, like 'f1,3'
--         ('f' first: it takes turns; then 's': waiting does not lift its jobs)
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
local FIRST_READY, FIRST_FLOW, FIRST_ARG, DEFAULT_CLASS = 14, 19, 5, 3
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

-- What holds for several flows alike.
local gates = {}
if gate_count > 0 then
  for _, key in ipairs({holds, parked}) do redis.call('HLEN', key) end
  redis.call('ZCARD', rates)
  gates = read_gates(gate_count, FIRST_ARG + 4 * flow_count, FIRST_FLOW + flow_count, rates, exact)
end

local function ready_key(class) return KEYS[FIRST_READY + class - 1] end

-- A flow's first entries are read ahead, few of each where there are many flows; of one that takes turns none.
local flows, fair, share = {}, {{}, {}, {}, {}, {}}, math.ceil(limit / flow_count)
for f = 1, flow_count do
  local at = FIRST_ARG + (f - 1) * 4
  local flow = {number = f, key = KEYS[FIRST_FLOW + f - 1], class = tonumber(ARGV[at + 1]), member = ARGV[at + 2],
    allow = tonumber(ARGV[at + 3]), gates = NONE, entries = NONE, taken = 0}
  local terms = ARGV[at + 4]
  if terms ~= '' then
    local letters, numbers = string.match(terms, '^(%a*)(.*)$')
    flow.fair, flow.still = string.find(letters, 'f', 1, true) ~= nil, string.find(letters, 's', 1, true) ~= nil
    if numbers ~= '' then flow.gates = {} end
    for g in string.gmatch(numbers, '%d+') do flow.gates[#flow.gates + 1] = gates[tonumber(g)] end
  end
  if flow.fair then
    table.insert(fair[flow.class], flow)
  else
    read_on(flow, math.min(share, flow.allow) + 1)
    flow.place = flow.entries[1] and ready_of(flow.entries[1])
  end
  flows[f] = flow
end
for class = 1, 5 do read_places(fair[class], ready_key(class)) end
local line = {}
for _, flow in ipairs(flows) do
  if flow.place and flow.allow > 0 then join(line, 1, flow, now, aging) end
end

-- What the tokens of a flow's jobs begin with. The class and the key are in it, unless it is of the default class and has
-- no key: who rescues a job may not know how its kind's jobs are told apart.
local function token_prefix(flow)
  local key = string.match(flow.member, '@.*') or ''
  local mark = (flow.class ~= DEFAULT_CLASS or key ~= '') and flow.class .. key .. ':' or ''
  return ARGV[1] .. ':' .. ARGV[2] .. ':' .. mark
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

-- Entries taken from flows, with the ids in them, the flows they came from, and their envelopes; false for what is no job.
local picked, ids, origin, raws, count = {}, {}, {}, {}, 0

-- Reads the envelopes of those from number `first` to `last`; returns how many of them are jobs.
local function read(first, last)
  local alive = 0
  for n, raw in ipairs(redis.call('HMGET', jobs, unpack(ids, first, last))) do
    local i = first + n - 1
    raws[i] = not (stoned and left_behind(picked[i], ids[i])) and raw
    if raws[i] then alive = alive + 1 end
  end
  return alive
end

-- Up to here what was picked is read; what comes of flows without limits is read in one go.
local read_to, got, turn, first = 0, 0, 0, 1
-- What was dropped under a limit is made up for, a few hundred at most.
while got < limit and count < limit + 256 and line[first] do
  local flow, second, most = line[first], line[first + 1], nil
  first = first + 1
  most, flow.shut = through(flow.gates, math.min(limit - got, flow.allow))
  if not flow.shut then
    local before, brought = count, flow.taken
    if flow.fair then
      turn = turn + 1
      take_turn(flow, exact + turn / 1000)
    else
      take(flow, second, most, now, aging)
    end
    for i = brought + 1, flow.taken do
      local entry = flow.entries[i]
      count = count + 1
      picked[count], ids[count], origin[count] = entry, string.sub(entry, 15), flow
    end
    brought = count - before
    if flow.gates[1] and brought > 0 then
      if read_to < before then read(read_to + 1, before) end
      brought = read(before + 1, count)
      read_to = count
      for _, gate in ipairs(flow.gates) do gate.left = gate.left - brought end
    end
    got = got + brought
    flow.allow = flow.allow - brought
    if flow.place then
      local _, shut = through(flow.gates, 1)
      flow.shut = shut
      if not shut and flow.allow > 0 then join(line, first, flow, now, aging) end
    end
  end
end
if read_to < count then read(read_to + 1, count) end

local heads, shut, moved, gone = {}, {}, {{}, {}, {}, {}, {}}, {{}, {}, {}, {}, {}}
for f, flow in ipairs(flows) do
  heads[f] = flow.place and math.floor(flow.place) or -1
  local gate, to = flow.shut, moved[flow.class]
  if flow.taken > 0 and not flow.fair then redis.call('LTRIM', flow.key, flow.taken, -1) end
  if not flow.place then
    table.insert(gone[flow.class], flow.member)
  elseif gate and not gate.wide then
    park(flow, gate, parked, resume)
    table.insert(gone[flow.class], flow.member)
    if not gate.key then next_due = math.min(next_due, next_start(gate)) end
    heads[f] = -2
  elseif flow.taken > 0 then
    to[#to + 1], to[#to + 2] = flow.place, flow.member
  end
  if flow.place and gate and gate.wide and not gate.told then
    gate.told = true
    if gate.key then redis.call('HSETNX', parked, gate.name, '') end
    shut[#shut + 1], shut[#shut + 2] = gate.number, gate.every and next_start(gate) or -1
  end
end
for class = 1, 5 do
  if gone[class][1] then redis.call('ZREM', ready_key(class), unpack(gone[class])) end
  if moved[class][1] then redis.call('ZADD', ready_key(class), unpack(moved[class])) end
end

-- The jobs, each under its token; how many of a flow follow each other stands in `rows`.
local rows, claimed, tokens, their_ids, held, n, row, flow, prefix = {}, {}, {}, {}, {}, 0, 0, nil, nil
for i = 1, count do
  local raw = raws[i]
  if raw then
    if origin[i] ~= flow then
      flow, row = origin[i], row + 2
      rows[row - 1], rows[row] = flow.number, 0
      prefix = token_prefix(flow)
    end
    rows[row] = rows[row] + 1
    n = n + 1
    local at, entry, id = 2 * n, picked[i], ids[i]
    tokens[at - 1], tokens[at] = id, prefix .. string.sub(entry, 1, 13)
    claimed[at - 1], claimed[at] = entry, raw
    their_ids[n] = id
    if flow.gates[1] then take_slots(flow, id, held) end
  end
end
if n > 0 then redis.call('HSET', running, unpack(tokens)) end
if held[1] then redis.call('HSET', holds, unpack(held)) end
keep_gates(gates, rates, now)

-- What some of them have besides.
local histories, tied = {}, {}
if troubled and n > 0 then
  for j, history in ipairs(redis.call('HMGET', meta, unpack(their_ids))) do
    if history then histories[#histories + 1], histories[#histories + 2] = j, history end
  end
end

-- A lock that is held until the claim is given up; what waits to be united with the job is told.
local function tell_ties(id, number, bond)
  for lock in string.gmatch('\n' .. bond, '\nc([^\n]+)') do
    local holder = redis.call('HGET', locks, lock)
    if holder and string.sub(holder, 1, #id + 1) == id .. '|' then redis.call('HDEL', locks, lock) end
  end
  tied[#tied + 1], tied[#tied + 2], tied[#tied + 3] = number, bond, redis.call('HGET', merges, id) or ''
end
if bound and n > 0 then
  for j, bond in ipairs(redis.call('HMGET', ties, unpack(their_ids))) do
    if bond then tell_ties(their_ids[j], j, bond) end
  end
end

return {now, next_due < 1e13 and math.floor(math.max(next_due, -1)) or -1, heads, rows, claimed, histories, tied,
  shut, count - n}
