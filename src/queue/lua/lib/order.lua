-- Flows that stand in line: their first entries, read ahead a few at a time and removed in one go at the end, and the
-- order in which they are served: effective class, then place.
local NONE = {}

-- The ready time of an entry; 0 for one that nobody of us wrote, so that it is taken, found to be no job, and dropped.
local function ready_of(entry)
  return tonumber(string.match(entry, '^(%d%d%d%d%d%d%d%d%d%d%d%d%d):')) or 0
end

-- Reads so many entries more of a flow, if it has them.
local function read_on(flow, count)
  if flow.ended or count < 1 then return end
  local from = #flow.entries
  local chunk = redis.call('LRANGE', flow.key, from, from + count - 1)
  flow.ended = #chunk < count
  if from == 0 then
    flow.entries = chunk
  else
    for i, entry in ipairs(chunk) do flow.entries[from + i] = entry end
  end
end

-- Reads the places of flows that take turns. One that has none, but holds jobs, stands where its head does.
local function read_places(flows, ready)
  local members = {}
  for i, flow in ipairs(flows) do
    members[i] = flow.member
    -- Redis does not roll back: a key of the wrong type must show before the first turn.
    redis.call('LLEN', flow.key)
  end
  for i, place in ipairs(flows[1] and redis.call('ZMSCORE', ready, unpack(members)) or NONE) do
    local head = not place and redis.call('LINDEX', flows[i].key, 0)
    flows[i].place = tonumber(place or nil) or (head and ready_of(head))
  end
end

-- Tells the class of a flow, when each `aging` ms of waiting lift it by one, up to the second; one that is still is not
-- lifted. The first class is never shared.
local function stand(flow, now, aging)
  local highest = math.min(flow.class, 2)
  local lifted = flow.class - math.floor(math.max(0, now - flow.place) / aging)
  flow.rank = flow.still and flow.class or math.max(highest, lifted)
end

local function comes_before(a, b)
  return a.rank < b.rank or (a.rank == b.rank and a.place < b.place)
end

-- Puts a flow in its place in a line that begins at `first`. Most belong at its end.
local function join(line, first, flow, now, aging)
  stand(flow, now, aging)
  local low, high = first, #line + 1
  if high > low and not comes_before(flow, line[high - 1]) then low = high end
  while low < high do
    local middle = math.floor((low + high) / 2)
    if comes_before(flow, line[middle]) then high = middle else low = middle + 1 end
  end
  table.insert(line, low, flow)
end

-- The first entry that is not taken; none if nothing is left.
local function head_of(flow)
  if flow.taken == #flow.entries then read_on(flow, math.min(2 * flow.taken, 64)) end
  return flow.entries[flow.taken + 1]
end

-- Takes entries from a flow until it holds no more, or has given `most`, or its next one comes behind the flow `second`;
-- at least one.
local function take(flow, second, most, now, aging)
  local until_taken = flow.taken + most
  if not second then
    read_on(flow, until_taken + 1 - #flow.entries)
    flow.taken = math.min(until_taken, #flow.entries) - 1
  end
  repeat
    flow.taken = flow.taken + 1
    local head = head_of(flow)
    flow.place = head and ready_of(head)
    if head then stand(flow, now, aging) end
  until not head or flow.taken >= until_taken or (second and comes_before(second, flow))
end

-- Takes one entry from a flow that takes turns. Its turn is over then: at its new place it stands behind all who wait.
local function take_turn(flow, place)
  local entry = redis.call('LPOP', flow.key)
  if entry then
    flow.taken = flow.taken + 1
    if flow.taken == 1 then flow.entries = {entry} else flow.entries[flow.taken] = entry end
  end
  flow.place = redis.call('LLEN', flow.key) > 0 and place
end
