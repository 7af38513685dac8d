-- Flows that stand in line: their first entries, read ahead a few at a time and removed in one go, and the order in which
-- they are served.

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
  if from == 0 then flow.entries = chunk return end
  for i, entry in ipairs(chunk) do flow.entries[from + i] = entry end
end

-- The first entry that is not taken; none if nothing is left.
local function head_of(flow)
  if flow.taken == #flow.entries then read_on(flow, math.min(2 * flow.taken, 64)) end
  return flow.entries[flow.taken + 1]
end

local function comes_before(a, b)
  return a.rank < b.rank or (a.rank == b.rank and a.place < b.place)
end

-- Puts a flow in its place in a line that begins at `first`. Most belong at its end.
local function join(line, first, flow)
  local low, high = first, #line + 1
  if high > low and not comes_before(flow, line[high - 1]) then low = high end
  while low < high do
    local middle = math.floor((low + high) / 2)
    if comes_before(flow, line[middle]) then high = middle else low = middle + 1 end
  end
  table.insert(line, low, flow)
end

-- Takes entries from a flow until it holds no more, or has given `most`, or its next one comes behind the flow `second`;
-- at least one. `rank` tells the rank of a flow by its place.
local function take(flow, second, most, rank)
  local until_taken = flow.taken + most
  if not second then
    read_on(flow, until_taken + 1 - #flow.entries)
    flow.taken = math.min(until_taken, #flow.entries) - 1
  end
  repeat
    flow.taken = flow.taken + 1
    local head = head_of(flow)
    flow.place = head and ready_of(head)
    flow.rank = head and rank(flow)
  until flow.taken >= until_taken or not head or (second and comes_before(second, flow))
end
