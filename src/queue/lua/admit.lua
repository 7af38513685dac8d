#!lua flags=allow-oom
-- Moves the entries just peeked out of the inbox, each to where Rust decided, if nobody else took any meanwhile.
-- KEYS: inbox, taken, workers, jobs, ids, delayed, quarantine, stats, tomb, ready x5, flow...
-- ARGV: incarnation, expected taken, entries, bytes of them, first entry, last entry, quarantine max,
--       then for each entry: verb, a, b, given
--         verb = flow number (from 1): a = id,  b = priority number (1..5), given = '1' if the app gave the id
--         verb = 'd' delayed:          a = id,  b = due ms,                 given as above
--         verb = 'q' quarantine:       a = its id or '', b = code, given = reason
--       after them the kind of each flow
-- Out:  {'ok', now_ms, duplicates, number of each duplicate entry...} or {'moved'}; error LEASE if not registered
local inbox, taken_key, workers, jobs, ids, delayed, quarantine, stats, tomb = unpack(KEYS, 1, 9)
local FIRST_READY, FIRST_FLOW, HEAD = 10, 15, 7
local n = tonumber(ARGV[3])
if not redis.call('ZSCORE', workers, ARGV[1]) then return redis.error_reply('LEASE lost') end
if (redis.call('GET', taken_key) or '0') ~= ARGV[2] then return {'moved'} end
local raws = redis.call('LRANGE', inbox, 0, n - 1)
local bytes = 0
for _, raw in ipairs(raws) do bytes = bytes + #raw end
-- A client that pushes at the wrong end moves what was judged, and `taken` does not tell.
if #raws ~= n or bytes ~= tonumber(ARGV[4]) or raws[1] ~= ARGV[5] or raws[n] ~= ARGV[6] then return {'moved'} end

-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({jobs, stats}) do redis.call('HLEN', key) end
for _, key in ipairs({ids, delayed, unpack(KEYS, FIRST_READY, FIRST_FLOW - 1)}) do redis.call('ZCARD', key) end
for k = FIRST_FLOW, #KEYS do redis.call('LLEN', KEYS[k]) end
redis.call('XLEN', quarantine)
local stones = redis.call('HLEN', tomb) > 0

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local payloads, pushes, seen, duplicates, quarantined = {}, {}, {}, {}, 0

-- Whether a given id is taken: by a live job, by one remembered, or earlier in this batch.
local function taken(id)
  if seen[id] then return true end
  seen[id] = true
  if redis.call('HEXISTS', jobs, id) == 1 then return true end
  local score = redis.call('ZSCORE', ids, id)
  if not score then return false end
  -- Score 1 is a reservation by the enqueue script, which this very entry redeems.
  if tonumber(score) > 1 and tonumber(score) > now then return true end
  redis.call('ZREM', ids, id)
  return false
end

-- The earliest ready time of an id: after that of the entries which a cancelled job of the same id left behind.
local function earliest(id)
  local stone = stones and redis.call('HGET', tomb, id)
  local at = string.match(stone or '', '^%d+:(%d+)$')
  return at and at + 1 or 0
end

for i = 1, n do
  local at = HEAD + (i - 1) * 4
  local verb, a, b, given = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  if verb == 'q' then
    if a ~= '' and redis.call('ZSCORE', ids, a) == '1' then redis.call('ZREM', ids, a) end
    redis.call('XADD', quarantine, 'MAXLEN', '~', ARGV[7], '*', 'at', now, 'code', b, 'reason', given, 'raw', raws[i])
    quarantined = quarantined + 1
  elseif given == '1' and taken(a) then
    duplicates[#duplicates + 1] = i
  else
    payloads[#payloads + 1] = a
    payloads[#payloads + 1] = raws[i]
    if verb == 'd' then
      redis.call('ZADD', delayed, math.max(tonumber(b), earliest(a)), a)
    else
      local f = tonumber(verb)
      local list = pushes[f]
      if not list then list = {priority = tonumber(b)}; pushes[f] = list end
      list[#list + 1] = string.format('%013d:%s', math.max(now, earliest(a)), a)
    end
  end
end
if #payloads > 0 then redis.call('HSET', jobs, unpack(payloads)) end
local first_kind = HEAD + n * 4
for f, list in pairs(pushes) do
  redis.call('RPUSH', KEYS[FIRST_FLOW + f - 1], unpack(list))
  redis.call('ZADD', KEYS[FIRST_READY + list.priority - 1], 'NX', now, ARGV[first_kind + f])
end
redis.call('LTRIM', inbox, n, -1)
redis.call('INCRBY', taken_key, n)
-- A counter that somebody made unusable must not stop the queue.
redis.pcall('HINCRBY', stats, 'admitted', #payloads / 2)
if #duplicates > 0 then redis.pcall('HINCRBY', stats, 'duplicates', #duplicates) end
if quarantined > 0 then redis.pcall('HINCRBY', stats, 'quarantined', quarantined) end
return {'ok', now, #duplicates, unpack(duplicates)}
