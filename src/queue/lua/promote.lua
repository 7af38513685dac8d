#!lua flags=allow-oom
-- Moves due jobs from the delayed set to the tails of their flows. Who comes second changes nothing.
-- KEYS: workers, delayed, jobs, ready x5, flow...
-- ARGV: incarnation, items, then for each: id, due ms as read, flow number, priority number; then the kind of each flow
-- Out:  number moved; error LEASE if not registered
local workers, delayed, jobs = unpack(KEYS, 1, 3)
local FIRST_READY, FIRST_FLOW = 4, 9
local n, moved = tonumber(ARGV[2]), 0
if not redis.call('ZSCORE', workers, ARGV[1]) then return redis.error_reply('LEASE lost') end
for i = 1, n do
  local at = 2 + (i - 1) * 4
  local id, due, f, p = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local score = redis.call('ZSCORE', delayed, id)
  if score and tonumber(score) == tonumber(due) then
    redis.call('ZREM', delayed, id)
    if f > 0 then
      redis.call('RPUSH', KEYS[FIRST_FLOW + f - 1], string.format('%013d:%s', due, id))
      redis.call('ZADD', KEYS[FIRST_READY + p - 1], 'NX', due, ARGV[2 + n * 4 + f])
      moved = moved + 1
    end
  end
end
return moved
