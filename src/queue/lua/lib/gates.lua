-- Limits across all daemons, as a claim keeps them. A gate holds for several flows alike: for the slots of a name, or its
-- rate. `room` is how many jobs it lets through now, `left` how many more.

-- Reads `count` gates from the arguments behind `at`; the keys of slots come in the same order from `key` on.
local function read_gates(count, at, key, rates, exact)
  local gates = {}
  for number = 1, count do
    local letter, first, second = ARGV[at + 1], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    local gate = {number = number, name = ARGV[at + 2], wide = letter == string.upper(letter), ids = {}}
    if string.lower(letter) == 's' then
      gate.key = KEYS[key]
      key = key + 1
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
    gates[number] = gate
    at = at + 4
  end
  return gates
end

-- How many of `most` jobs some gates let through, and the first one that lets none.
local function through(gates, most)
  local shut = nil
  for _, gate in ipairs(gates) do
    most = math.min(most, gate.left)
    if gate.left < 1 then shut = shut or gate end
  end
  return most, shut
end

-- When the rate of a gate lets the next job start, ms.
local function next_start(gate)
  return math.ceil(gate.used + (gate.room - gate.left - gate.burst + 1) * gate.every)
end

-- Notes a flow that is taken out of line until somebody gives back a slot of its key, or until its rate lets it start again.
local function park(flow, gate, parked, resume)
  local line = flow.class .. ':' .. flow.member
  if not gate.key then
    redis.call('ZADD', resume, next_start(gate), line)
    return
  end
  local listed = redis.call('HGET', parked, gate.name) or ''
  if not string.find('\n' .. listed, '\n' .. line .. ':', 1, true) then
    local before = listed == '' and '' or listed .. '\n'
    redis.call('HSET', parked, gate.name, string.format('%s%s:%.3f', before, line, flow.place))
  end
end

-- The slots that a job of a flow takes: it is noted with each, and their names go to `held`.
local function take_slots(flow, id, held)
  local names = {}
  for _, gate in ipairs(flow.gates) do
    if gate.key then
      gate.ids[#gate.ids + 1] = id
      names[#names + 1] = gate.name
    end
  end
  if names[1] then held[#held + 1], held[#held + 2] = id, table.concat(names, '\n') end
end

-- Writes down what went through.
local function keep_gates(gates, rates, now)
  for _, gate in ipairs(gates) do
    if gate.ids[1] then redis.call('SADD', gate.key, unpack(gate.ids)) end
    if gate.every and (gate.left < gate.room or gate.cut) then
      redis.call('ZADD', rates, gate.used + (gate.room - gate.left) * gate.every, gate.name)
      -- A rate of which nothing is used up needs no memory.
      local idle = redis.call('ZRANGE', rates, '-inf', now, 'BYSCORE', 'LIMIT', 0, 4)
      if #idle > 0 then redis.call('ZREM', rates, unpack(idle)) end
    end
  end
end
