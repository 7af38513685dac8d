#!lua flags=allow-oom
-- Lists a flow that holds entries and is not listed.
-- KEYS: ready, flow
-- ARGV: its member, '1' to do it, else it is only said
-- Out:  1 if it was so, else 0
local ready, flow = unpack(KEYS)
local head = redis.call('LINDEX', flow, 0)
if not head or redis.call('ZSCORE', ready, ARGV[1]) then return 0 end
if ARGV[2] == '1' then
  redis.call('ZADD', ready, tonumber(string.match(head, '^(%d%d%d%d%d%d%d%d%d%d%d%d%d):')) or 0, ARGV[1])
end
return 1
