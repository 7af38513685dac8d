-- The order in which flows are taken from: effective class, then place.

-- The ready time of an entry; 0 for one that nobody of us wrote, so that it is taken, found to be no job, and dropped.
local function ready_of(entry)
  return tonumber(string.match(entry, '^(%d%d%d%d%d%d%d%d%d%d%d%d%d):')) or 0
end

local function head_of(key)
  local head = redis.call('LINDEX', key, 0)
  return head and ready_of(head)
end

-- The class of a flow whose place is this, when each `aging` ms of waiting lift it by one.
local function rank(flow, place, now, aging)
  return math.max(1, flow.class - math.floor(math.max(0, now - place) / aging))
end

-- The flow that is first in the order, and the one after it.
local function first_two(flows, now, aging)
  local best, second
  for _, flow in ipairs(flows) do
    if flow.place and flow.allow > 0 and not flow.shut then
      flow.rank = rank(flow, flow.place, now, aging)
      if not best or flow.rank < best.rank or (flow.rank == best.rank and flow.place < best.place) then
        best, second = flow, best
      elseif not second or flow.rank < second.rank or (flow.rank == second.rank and flow.place < second.place) then
        second = flow
      end
    end
  end
  return best, second
end

-- How many of a flow's first entries come before the place of `second`: at least one.
local function run_length(flow, second, most, now, aging)
  if flow.fair then return 1 end
  if not second then return most end
  local chunk = redis.call('LRANGE', flow.key, 1, math.min(most, 64) - 1)
  for i, entry in ipairs(chunk) do
    local ready = ready_of(entry)
    local class = rank(flow, ready, now, aging)
    if class > second.rank or (class == second.rank and ready > second.place) then return i end
  end
  return #chunk + 1
end
