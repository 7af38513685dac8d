#!lua flags=allow-oom
-- Gives an order to the gate of every daemon, or releases orders, and notes who did it. Orders that ended are removed
-- first, each with its end on record.
-- KEYS: orders, audit
-- ARGV: 'force' | 'release' | 'tidy', who, audit max, most orders,
--       force: field, what, why, how long it holds ms
--       release: field...
-- Out:  {now ms, the orders that were replaced or released, as {field, value}...}
--       error REFUSED if there are too many orders
-- An order is a field `<aspect>:<target>` with the value `<at ms> <until ms> <who> <what>\n<why>`.
local orders, audit = unpack(KEYS)
local act, who, audit_max, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
-- Redis does not roll back: a key of the wrong type must show before the first write.
redis.call('XLEN', audit)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local function note(at, event, by, field, value)
  redis.call('XADD', audit, 'MAXLEN', '~', audit_max, '*',
    'at', at, 'event', event, 'who', by, 'field', field, 'order', value)
end

-- At most as many as there may be.
local known = redis.call('HGETALL', orders)
local count = #known / 2
for i = 1, #known, 2 do
  local till = tonumber(string.match(known[i + 1], '^%d+ (%d+) '))
  if not till or till <= now then
    redis.call('HDEL', orders, known[i])
    note(till or now, 'over', '', known[i], known[i + 1])
    count = count - 1
  end
end

local replaced = {}
if act == 'force' then
  local field = ARGV[5]
  local old = redis.call('HGET', orders, field)
  if not old and count >= most then
    return redis.error_reply('REFUSED there are ' .. ARGV[4] .. ' orders; release some')
  end
  local value = string.format('%.0f %.0f %s %s\n%s', now, now + ARGV[8], who, ARGV[6], ARGV[7])
  redis.call('HSET', orders, field, value)
  note(now, 'force', who, field, value)
  if old then replaced[1] = {field, old} end
elseif act == 'release' then
  for i = 5, #ARGV do
    local old = redis.call('HGET', orders, ARGV[i])
    if old then
      redis.call('HDEL', orders, ARGV[i])
      note(now, 'release', who, ARGV[i], old)
      replaced[#replaced + 1] = {ARGV[i], old}
    end
  end
end
return {now, replaced}
