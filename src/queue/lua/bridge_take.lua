-- Puts the next tasks of a namespace of apalis-redis in a line of our own, where no stock worker takes them, and returns
-- the head of that line. Nothing leaves the line here.
-- KEYS: the namespace's active (list), scheduled (zset by seconds) and data (hash), our line (list)
-- ARGV: max tasks, max bytes in all, max bytes of one payload, how many seconds ahead a task may be due
-- Out:  {now_ms, tasks that wait in all, then for each task: its entry in the line, the size of its payload (-1: there is
--       none), the payload ('' if there is none or it is too large)}
local active, scheduled, data, line = unpack(KEYS)
local max, max_bytes, max_one = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
-- Redis does not roll back: a key of the wrong type must show before the first write.
local waiting = redis.call('LLEN', line) + redis.call('LLEN', active) + redis.call('ZCARD', scheduled)
redis.call('HLEN', data)
local room = max - redis.call('LLEN', line)
if room > 0 then
  local entries, from_schedule = {}, {}
  local from_active = redis.call('LRANGE', active, 0, room - 1)
  for i, id in ipairs(from_active) do entries[i] = '0:' .. id end
  if #entries < room then
    local due = redis.call('ZRANGE', scheduled, '-inf', t[1] + ARGV[4], 'BYSCORE', 'LIMIT', 0, room - #entries, 'WITHSCORES')
    for i = 1, #due, 2 do
      from_schedule[#from_schedule + 1] = due[i]
      entries[#entries + 1] = string.format('%.0f:%s', math.max(tonumber(due[i + 1]), 0), due[i])
    end
  end
  if #entries > 0 then redis.call('RPUSH', line, unpack(entries)) end
  if #from_active > 0 then redis.call('LTRIM', active, #from_active, -1) end
  if #from_schedule > 0 then redis.call('ZREM', scheduled, unpack(from_schedule)) end
end
local out, bytes = {now, waiting}, 0
for _, entry in ipairs(redis.call('LRANGE', line, 0, max - 1)) do
  local id = string.match(entry, '^%d+:(.*)$') or entry
  local size, payload = redis.call('HSTRLEN', data, id), ''
  if size == 0 and redis.call('HEXISTS', data, id) == 0 then
    size = -1
  elseif size <= max_one then
    if bytes > 0 and bytes + size > max_bytes then break end
    payload, bytes = redis.call('HGET', data, id), bytes + size
  end
  out[#out + 1], out[#out + 2], out[#out + 3] = entry, size, payload
end
return out
