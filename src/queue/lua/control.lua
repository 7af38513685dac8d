#!lua flags=allow-oom
-- Changes what holds for a queue while daemons run, notes who did it, and tells every daemon.
-- KEYS: control, audit, bell
-- ARGV: field, new value ('' to clear it), who, audit max, most fields, the value it is known to have or ''
-- Out:  {'ok' or 'other' (it has another value: nothing is done), the value it had or ''};
--       error REFUSED if there are too many fields
local control, audit, bell = unpack(KEYS)
local field, value = ARGV[1], ARGV[2]
-- Redis does not roll back: a key of the wrong type must show before the first write.
redis.call('XLEN', audit)
local old = redis.call('HGET', control, field) or ''
if old ~= ARGV[6] then return {'other', old} end
if old == value then return {'ok', old} end
if old == '' and value ~= '' and redis.call('HLEN', control) >= tonumber(ARGV[5]) then
  return redis.error_reply('REFUSED more than ' .. ARGV[5] .. ' pauses and limits; clear some')
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if value == '' then redis.call('HDEL', control, field) else redis.call('HSET', control, field, value) end
redis.call('XADD', audit, 'MAXLEN', '~', ARGV[4], '*', 'at', now, 'who', ARGV[3], 'field', field, 'old', old, 'new', value)
redis.pcall('PUBLISH', bell, 'look')
return {'ok', old}
