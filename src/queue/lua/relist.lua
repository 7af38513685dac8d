#!lua flags=allow-oom
-- Lists a flow that holds entries, is not listed, and waits neither for a slot nor for its rate.
-- KEYS: ready, flow, parked, resume
-- ARGV: its member, its priority number, '1' to do it, else it is only said
-- Out:  1 if it was so, else 0
local ready, flow, parked, resume = unpack(KEYS)
local head = redis.call('LINDEX', flow, 0)
if not head or redis.call('ZSCORE', ready, ARGV[1]) then return 0 end
local name = ARGV[2] .. ':' .. ARGV[1]
if redis.call('ZSCORE', resume, name) then return 0 end
local waits = '\n' .. (redis.call('HGET', parked, ARGV[1]) or '')
if string.find(waits, '\n' .. name .. ':', 1, true) then return 0 end
if ARGV[3] == '1' then
  redis.call('ZADD', ready, tonumber(string.match(head, '^(%d%d%d%d%d%d%d%d%d%d%d%d%d):')) or 0, ARGV[1])
end
return 1
