#!lua flags=allow-oom
-- One turn of a daemon among those that share their breakers: what was decided is changed where nobody else did so first,
-- what it tells is added, and what others told and all decided is handed out. Repeated, it changes no decision twice, and
-- what it tells only replaces what it told.
-- KEYS: decisions, news
-- ARGV: who, news or '', id after which news are wanted, most entries handed out, ms that news are kept,
--       ms that decisions are kept, most decisions, and for each change: operation, decision it was made from or '',
--       new one or '' to forget it
-- Out:  {now_ms, {1 if that change was made, else 0, ...}, {operation, decision, ...}, {id, who, news, ...}}
local decisions, news = KEYS[1], KEYS[2]
local count = redis.call('HLEN', decisions)
redis.call('XLEN', news)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local made = {}
for i = 8, #ARGV, 3 do
  local held = redis.call('HGET', decisions, ARGV[i]) or ''
  local is_first = held == ARGV[i + 1] and held ~= ARGV[i + 2] and (held ~= '' or count < tonumber(ARGV[7]))
  if is_first and ARGV[i + 2] == '' then
    redis.call('HDEL', decisions, ARGV[i])
    count = count - 1
  elseif is_first then
    redis.call('HSET', decisions, ARGV[i], ARGV[i + 2])
    if held == '' then count = count + 1 end
  end
  made[#made + 1] = is_first and 1 or 0
end
if #made > 0 then redis.call('PEXPIRE', decisions, ARGV[6]) end
if ARGV[2] ~= '' then
  redis.call('XADD', news, 'MAXLEN', 1024, '*', 'who', ARGV[1], 'news', ARGV[2])
  redis.call('XTRIM', news, 'MINID', now - ARGV[5])
  redis.call('PEXPIRE', news, ARGV[5])
end
local told = {}
for _, entry in ipairs(redis.call('XRANGE', news, '(' .. ARGV[3], '+', 'COUNT', ARGV[4])) do
  told[#told + 1] = entry[1]
  told[#told + 1] = entry[2][2] or ''
  told[#told + 1] = entry[2][4] or ''
end
return {now, made, redis.call('HGETALL', decisions), told}
