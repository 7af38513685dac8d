#!lua flags=allow-oom
-- Takes slots back from those that do not run any more, and puts flows in line again that are parked where there is room:
-- a limit was raised, or somebody wrote to private storage. Releases do both by themselves.
-- KEYS: workers, running, holds, parked, bell, ready x5, slots...
-- ARGV: incarnation, then for each slot: its name, how many there are (-1: there is no such limit any more)
-- Out:  {holders removed, slots whose flows were put in line}; error LEASE if not registered
local workers, running, holds, parked, bell = unpack(KEYS, 1, 5)
local FIRST_READY, FIRST_SLOT, HOLDERS = 6, 11, 512
if not redis.call('ZSCORE', workers, ARGV[1]) then return redis.error_reply('LEASE lost') end
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({running, holds, parked}) do redis.call('HLEN', key) end
for k = FIRST_READY, FIRST_SLOT - 1 do redis.call('ZCARD', KEYS[k]) end
for k = FIRST_SLOT, #KEYS do redis.call('SCARD', KEYS[k]) end
local removed, woken = 0, 0
for s = 1, #KEYS - FIRST_SLOT + 1 do
  local slot, name, limit = KEYS[FIRST_SLOT + s - 1], ARGV[2 * s], tonumber(ARGV[2 * s + 1])
  local holders, gone = redis.call('SRANDMEMBER', slot, HOLDERS), {}
  local tokens = #holders > 0 and redis.call('HMGET', running, unpack(holders)) or {}
  for i, token in ipairs(tokens) do
    if not token then gone[#gone + 1] = holders[i] end
  end
  if #gone > 0 then
    redis.call('SREM', slot, unpack(gone))
    redis.call('HDEL', holds, unpack(gone))
    removed = removed + #gone
  end
  local room = limit < 0 or redis.call('SCARD', slot) < limit
  if room and wake(parked, name, FIRST_READY) then woken = woken + 1 end
end
if woken > 0 then redis.pcall('PUBLISH', bell, ARGV[1]) end
return {removed, woken}
