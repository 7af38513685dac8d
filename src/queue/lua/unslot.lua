#!lua flags=allow-oom
-- One bounded step through the holders of slots, for those that do not run, and for flows that wait for a slot of which
-- there is none that could come free: nobody will put them in line again.
-- KEYS: running, parked, bell, ready x5, slots...
-- ARGV: '1' to put it right, else it is only said; holders looked at in about; then for each slot: name, cursor
-- Out:  {{next cursor of each slot...}, {holder that does not run...}, {slot whose flows nobody would wake...}}
local running, parked, bell = unpack(KEYS, 1, 3)
local FIRST_READY, FIRST_SLOT = 4, 9
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({running, parked}) do redis.call('HLEN', key) end
for k = FIRST_READY, FIRST_SLOT - 1 do redis.call('ZCARD', KEYS[k]) end
for k = FIRST_SLOT, #KEYS do redis.call('SCARD', KEYS[k]) end
local repair, cursors, ghosts, stuck, woken = ARGV[1] == '1', {}, {}, {}, false
for k = FIRST_SLOT, #KEYS do
  local slot, n = KEYS[k], k - FIRST_SLOT + 1
  local name, cursor, gone = ARGV[1 + 2 * n], ARGV[2 + 2 * n], {}
  -- Nobody holds one, so nobody gives one back.
  if redis.call('EXISTS', slot) == 0 and redis.call('HEXISTS', parked, name) == 1 then
    stuck[#stuck + 1] = name
    if repair then woken = wake(parked, name, FIRST_READY) or woken end
  end
  local step = redis.call('SSCAN', slot, cursor, 'COUNT', ARGV[2])
  cursors[n] = step[1]
  for _, id in ipairs(step[2]) do
    if redis.call('HEXISTS', running, id) == 0 then
      gone[#gone + 1] = id
      ghosts[#ghosts + 1] = id
    end
  end
  if repair and #gone > 0 then
    redis.call('SREM', slot, unpack(gone))
    woken = wake(parked, name, FIRST_READY) or woken
  end
end
if woken then redis.pcall('PUBLISH', bell, 'look') end
return {cursors, ghosts, stuck}
