#!lua flags=allow-oom
-- Puts right what jobs hold: takes slots back from those that do not run, and counts those who run and are not counted.
-- KEYS: running, holds, parked, bell, ready x5, slots: those of each job in the order of its lines
-- ARGV: '1' to do it, else it is only said; then for each job: id, what it holds as read
-- Out:  {id...}: those that held something though they did not run, or were not counted
local running, holds, parked, bell = unpack(KEYS, 1, 4)
local FIRST_READY, FIRST_SLOT = 5, 10
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({running, parked}) do redis.call('HLEN', key) end
for k = FIRST_READY, FIRST_SLOT - 1 do redis.call('ZCARD', KEYS[k]) end
for k = FIRST_SLOT, #KEYS do redis.call('SCARD', KEYS[k]) end
local repair, out, slot, woken = ARGV[1] == '1', {}, FIRST_SLOT, false
for i = 2, #ARGV, 2 do
  local id, lines = ARGV[i], ARGV[i + 1]
  local same = redis.call('HGET', holds, id) == lines
  local runs = redis.call('HEXISTS', running, id) == 1
  local wrong = same and not runs
  for name in string.gmatch(lines, '[^\n]+') do
    local counted = redis.call('SISMEMBER', KEYS[slot], id) == 1
    wrong = wrong or same and not counted
    if same and repair and runs and not counted then redis.call('SADD', KEYS[slot], id) end
    if same and repair and not runs then
      redis.call('SREM', KEYS[slot], id)
      woken = wake(parked, name, FIRST_READY) or woken
    end
    slot = slot + 1
  end
  if wrong then out[#out + 1] = id end
  if wrong and repair and not runs then redis.call('HDEL', holds, id) end
end
if woken then redis.pcall('PUBLISH', bell, 'look') end
return out
