#!lua flags=allow-oom
-- Moves the entries just peeked out of the inbox, each to where Rust decided, if nobody else took any meanwhile.
-- KEYS: inbox, taken, workers, jobs, ids, delayed, quarantine, stats, tomb, ready x5, flow...
-- ARGV: incarnation, expected taken, entries, bytes of them, first entry, last entry, quarantine max,
--       quarantine bytes, then for each flow: its kind, its priority number (1..5),
--       then for each entry: verb, its id or '', arguments
--         a verb is a flow number (from 1) for an entry that may run now, or 'd' or 'q'; followed by 'g' if the app
--         gave the id
--         'd' delayed: due ms
--         'q' quarantine: code, reason
-- Out:  {'ok', now_ms, duplicates, number of each duplicate entry...} or {'moved'}; error LEASE if not registered
local inbox, taken_key, workers, jobs, ids, delayed, quarantine, stats, tomb = unpack(KEYS, 1, 9)
local FIRST_READY, FIRST_FLOW, HEAD, GIVEN = 10, 15, 8, string.byte('g')
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
local payloads, seen, duplicates, quarantined = {}, {}, {}, 0

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

-- The entries for each flow, found by either form of its verb.
local lists, of_verb = {}, {}
for f = 1, #KEYS - FIRST_FLOW + 1 do
  lists[f] = {}
  of_verb[tostring(f)], of_verb[f .. 'g'] = lists[f], lists[f]
end

local stamp, at = string.format('%013d:', now), HEAD + 2 * #lists
for i = 1, n do
  local verb, id = ARGV[at + 1], ARGV[at + 2]
  local list = of_verb[verb]
  local letter = not list and string.sub(verb, 1, 1)
  if letter == 'q' then
    if id ~= '' and redis.call('ZSCORE', ids, id) == '1' then redis.call('ZREM', ids, id) end
    quarantining.add(quarantine, stats, tonumber(ARGV[7]), tonumber(ARGV[8]), now, ARGV[at + 3], ARGV[at + 4], raws[i])
    quarantined = quarantined + 1
    at = at + 4
  elseif string.byte(verb, -1) == GIVEN and taken(id) then
    duplicates[#duplicates + 1] = i
    at = at + (list and 2 or 3)
  else
    payloads[#payloads + 1] = id
    payloads[#payloads + 1] = raws[i]
    if list then
      list[#list + 1] = stones and string.format('%013d:%s', math.max(now, earliest(id)), id) or stamp .. id
      at = at + 2
    else
      redis.call('ZADD', delayed, math.max(tonumber(ARGV[at + 3]), earliest(id)), id)
      at = at + 3
    end
  end
end
if #payloads > 0 then redis.call('HSET', jobs, unpack(payloads)) end
for f, list in ipairs(lists) do
  if #list > 0 then
    local kind, priority = ARGV[HEAD + 2 * f - 1], tonumber(ARGV[HEAD + 2 * f])
    redis.call('RPUSH', KEYS[FIRST_FLOW + f - 1], unpack(list))
    redis.call('ZADD', KEYS[FIRST_READY + priority - 1], 'NX', now, kind)
  end
end
redis.call('LTRIM', inbox, n, -1)
redis.call('INCRBY', taken_key, n)
-- A counter that somebody made unusable must not stop the queue.
redis.pcall('HINCRBY', stats, 'admitted', #payloads / 2)
if #duplicates > 0 then redis.pcall('HINCRBY', stats, 'duplicates', #duplicates) end
if quarantined > 0 then redis.pcall('HINCRBY', stats, 'quarantined', quarantined) end
return {'ok', now, #duplicates, unpack(duplicates)}
