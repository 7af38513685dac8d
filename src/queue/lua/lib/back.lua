-- Puts entries back into a flow where they stood: before what became ready later, behind what became ready earlier. `ready`
-- orders the flows of its class, `member` is how that lists it.
local function put_back(flow, ready, member, entries)
  local newest, order = '', {}
  for i, entry in ipairs(entries) do
    order[i] = {string.sub(entry, 1, 13), i, entry}
    newest = order[i][1] > newest and order[i][1] or newest
  end
  -- More than a few hundred can't have been put back before them just now.
  local older, first = 0, redis.call('LRANGE', flow, 0, 499)
  for i, entry in ipairs(first) do
    local at = string.sub(entry, 1, 13)
    if at >= newest then break end
    order[#order + 1] = {at, #entries + i, entry}
    older = i
  end
  table.sort(order, function(x, y) return x[1] < y[1] or (x[1] == y[1] and x[2] < y[2]) end)
  if older > 0 then redis.call('LPOP', flow, older) end
  local line = {}
  for i = #order, 1, -1 do line[#line + 1] = order[i][3] end
  redis.call('LPUSH', flow, unpack(line))
  -- A place that is not the ready time of the head is that of a flow which takes turns: it stays there.
  local place = first[1] and string.find(member, '@', 1, true) and redis.call('ZSCORE', ready, member)
  if place and tonumber(place) ~= tonumber(string.sub(first[1], 1, 13)) then return end
  redis.call('ZADD', ready, tonumber(order[1][1]) or 0, member)
end
