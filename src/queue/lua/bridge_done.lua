#!lua flags=allow-oom
-- Takes tasks out of the line: those that were handed over for good, others to the namespace's own dead, with a note.
-- KEYS: our line (list), the namespace's data (hash) and dead (set), then the meta (hash) of each task
-- ARGV: for each task: its entry in the line, its id, 'done' or 'dead', the note of a dead one
-- Out:  how many were taken out: those that another daemon took out before are not among them
local line, data, dead = unpack(KEYS, 1, 3)
local FIRST_META = 4
local t = redis.call('TIME')
local number = {}
for i = 1, #ARGV / 4 do number[ARGV[i * 4 - 3]] = i end
-- Redis does not roll back: a key of the wrong type must show before the first write.
redis.call('HLEN', data)
redis.call('SCARD', dead)
for i = 1, #ARGV / 4 do
  if ARGV[i * 4 - 1] == 'dead' then redis.call('HLEN', KEYS[FIRST_META + i - 1]) end
end
local taken = 0
for _, entry in ipairs(redis.call('LRANGE', line, 0, #ARGV / 4 - 1)) do
  local i = number[entry]
  -- Only ever from the head, so that nobody overtakes.
  if not i then break end
  taken = taken + 1
  local id, verb, meta = ARGV[i * 4 - 2], ARGV[i * 4 - 1], KEYS[FIRST_META + i - 1]
  if verb == 'dead' then
    redis.call('SADD', dead, id)
    redis.call('HSET', meta, 'status', 'Killed', 'result', ARGV[i * 4], 'done_at', t[1])
  else
    redis.call('HDEL', data, id)
    redis.call('DEL', meta)
  end
end
if taken > 0 then redis.call('LPOP', line, taken) end
return taken
