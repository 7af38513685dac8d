-- Everything a daemon must know about a queue to plan its next step. Writes nothing.
-- KEYS: jobs, delayed, inbox, cancels, running, stats, ready x5
-- ARGV: max flows per priority, max due jobs
-- Out:  {now_ms, next due ms or -1, inbox length, running, {cancelled id...}, {due id, due ms, envelope...},
--       {flow, head ready ms, ...} x5}
local jobs, delayed, inbox, cancels, running = unpack(KEYS, 1, 5)
local FIRST_READY = 7
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local next_due = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
local due = {}
if next_due[2] and tonumber(next_due[2]) <= now then
  local found = redis.call('ZRANGE', delayed, '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
  for i = 1, #found, 2 do
    due[#due + 1] = found[i]
    due[#due + 1] = found[i + 1]
    due[#due + 1] = redis.call('HGET', jobs, found[i]) or ''
  end
end
local wanted = {}
if redis.call('EXISTS', cancels) == 1 then
  wanted = redis.call('HSCAN', cancels, 0, 'COUNT', 256)[2]
end
local out = {now, next_due[2] and math.floor(tonumber(next_due[2])) or -1, redis.call('LLEN', inbox),
  redis.call('HLEN', running), wanted, due}
for p = 0, 4 do
  out[#out + 1] = redis.call('ZRANGE', KEYS[FIRST_READY + p], 0, ARGV[1] - 1, 'WITHSCORES')
end
return out
