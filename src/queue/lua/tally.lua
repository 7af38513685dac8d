#!lua flags=no-writes
-- Counts a queue in one instant. Writes nothing.
-- KEYS: jobs, delayed, running, dead, tomb, parked, resume, ready x5, flow...
-- ARGV: most flows listed per priority, most tombstones counted, then for each flow: its priority number, its member
-- Out:  {'ok', jobs, waiting entries, tombstones, delayed, running, dead, {number of each flow that holds entries but is
--       not listed...}}; {'more', priority number, member, ...} if flows are listed that were not named; {'many'} if
--       there is too much to count
local jobs, delayed, running, dead, tomb, parked, resume = unpack(KEYS, 1, 7)
local FIRST_READY, FIRST_FLOW = 8, 13
local most, most_stones = tonumber(ARGV[1]), tonumber(ARGV[2])
if redis.call('HLEN', tomb) > most_stones or redis.call('HLEN', parked) > most or redis.call('ZCARD', resume) > most then
  return {'many'}
end
local named, listed, more = {{}, {}, {}, {}, {}}, {{}, {}, {}, {}, {}}, {'more'}
for f = 1, #KEYS - FIRST_FLOW + 1 do named[tonumber(ARGV[1 + 2 * f])][ARGV[2 + 2 * f]] = true end

local function list(p, member)
  if not listed[p] then return end
  listed[p][member] = true
  if not named[p][member] then
    more[#more + 1] = p
    more[#more + 1] = member
  end
end

for p = 1, 5 do
  local members = redis.call('ZRANGE', KEYS[FIRST_READY + p - 1], 0, most)
  if #members > most then return {'many'} end
  for _, member in ipairs(members) do list(p, member) end
end
-- Flows that wait for a slot, or for their rate, are not listed as ready.
for _, flows in ipairs(redis.call('HVALS', parked)) do
  for line in string.gmatch(flows, '[^\n]+') do
    local p, member = string.match(line, '^(%d):(.*):[^:]*$')
    if p then list(tonumber(p), member) end
  end
end
for _, flow in ipairs(redis.call('ZRANGE', resume, 0, -1)) do
  local p, member = string.match(flow, '^(%d):(.*)$')
  if p then list(tonumber(p), member) end
end
if #more > 1 then return more end
local waiting, unlisted, stones = 0, {}, 0
for f = 1, #KEYS - FIRST_FLOW + 1 do
  local length = redis.call('LLEN', KEYS[FIRST_FLOW + f - 1])
  waiting = waiting + length
  if length > 0 and not listed[tonumber(ARGV[1 + 2 * f])][ARGV[2 + 2 * f]] then unlisted[#unlisted + 1] = f end
end
for _, stone in ipairs(redis.call('HVALS', tomb)) do
  stones = stones + (tonumber(string.match(stone, '^(%d+):%d+$')) or 0)
end
return {'ok', redis.call('HLEN', jobs), waiting, stones, redis.call('ZCARD', delayed), redis.call('HLEN', running),
  redis.call('ZCARD', dead), unlisted}
