#!lua flags=allow-oom
-- Moves due jobs from the delayed set to the tails of their flows. Who comes second changes nothing.
-- KEYS: those of lib/ties.lua, workers, delayed, jobs, meta, quarantine, stats, ready x5, flow...
-- ARGV: incarnation, quarantine max, items, then for each: id, score as read, flow number, priority number;
--       then the kind of each flow. Flow number 0: it is no job, or its time is none, and goes to quarantine
-- Out:  number moved; error LEASE if not registered
local workers, delayed, jobs, meta, quarantine, stats = unpack(KEYS, 10, 15)
local FIRST_READY, FIRST_FLOW, HEAD = 16, 21, 3
local n, moved = tonumber(ARGV[3]), 0
if not redis.call('ZSCORE', workers, ARGV[1]) then return redis.error_reply('LEASE lost') end
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({jobs, meta, stats}) do redis.call('HLEN', key) end
for k = FIRST_READY, FIRST_FLOW - 1 do redis.call('ZCARD', KEYS[k]) end
for k = FIRST_FLOW, #KEYS do redis.call('LLEN', KEYS[k]) end
redis.call('XLEN', quarantine)
local bound = redis.call('HLEN', TIES) > 0
if bound then check_ties() end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local function set_aside(id, score)
  local raw = redis.call('HGET', jobs, id)
  if not raw then return end
  redis.call('XADD', quarantine, 'MAXLEN', '~', ARGV[2], '*', 'at', now, 'code', 'malformed',
    'reason', 'stored as delayed until ' .. score .. ', which is no time, or with an envelope that is none', 'raw', raw)
  redis.call('HDEL', jobs, id)
  redis.call('HDEL', meta, id)
  redis.pcall('HINCRBY', stats, 'quarantined', 1)
  local tied = bound and redis.call('HGET', TIES, id)
  if tied then untie(id, tied, 'quarantined', nil, nil, now) end
end

for i = 1, n do
  local at = HEAD + (i - 1) * 4
  local id, score, f, p = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  if redis.call('ZSCORE', delayed, id) == score then
    redis.call('ZREM', delayed, id)
    if f > 0 then
      redis.call('RPUSH', KEYS[FIRST_FLOW + f - 1], string.format('%013d:%s', score, id))
      redis.call('ZADD', KEYS[FIRST_READY + p - 1], 'NX', score, ARGV[HEAD + n * 4 + f])
      moved = moved + 1
    else
      set_aside(id, score)
    end
  end
end
keep_groups(now)
return moved
