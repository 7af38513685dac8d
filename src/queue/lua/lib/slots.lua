-- Puts the flows that are parked on a slot in line again; whether anybody was parked on it.
local function wake(parked, slot, first_ready)
  local flows = redis.call('HGET', parked, slot)
  if not flows then return false end
  redis.call('HDEL', parked, slot)
  for line in string.gmatch(flows, '[^\n]+') do
    local class, member, place = string.match(line, '^([1-5]):(.*):([%d.]+)$')
    if class then redis.call('ZADD', KEYS[first_ready + class - 1], 'LT', place, member) end
  end
  return true
end

