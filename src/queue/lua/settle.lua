#!lua flags=allow-oom
-- Ends deliveries, each only if its token is still the one under which the job runs.
-- KEYS: workers, running, jobs, meta, delayed, dead, recent, stats, ids, settled, quarantine, cancels, ready x5, flow...
-- ARGV: incarnation, batch number (0: not replayed), dead max, recent max, id window ms, quarantine max, items,
--       then for each: id, token, verb, a, b, c
--         'd' finished (done, expired, cancelled): a = record for the ring, b = '1' if the id is to be remembered,
--             c = '1' if it has a history
--         'r' again later: a = delay ms, b = history
--         'x' dead: a = history
--         'h' back to the head of its flow: a = flow number, b = priority number, c = history or '' to leave it
--         'q' quarantine: a = code, b = reason
--       after them a counter name for each item, then the kind of each flow
-- Out:  {'ok' | 'applied' | 'old', now_ms, number of each stale item...}; error LEASE if not registered
local workers, running, jobs, meta, delayed, dead, recent, stats, ids, settled, quarantine, cancels = unpack(KEYS, 1, 12)
local FIRST_READY, FIRST_FLOW, HEAD, WIDTH = 13, 18, 7, 6
local incarnation, batch, n = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[7])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if not redis.call('ZSCORE', workers, incarnation) then return redis.error_reply('LEASE lost') end
if batch > 0 then
  local last = redis.call('HGET', settled, incarnation)
  if last then
    local number, listed = string.match(last, '^(%d+)|(.*)$')
    if tonumber(number) > batch then return {'old', now} end
    if tonumber(number) == batch then
      local out = {'applied', now}
      for i in string.gmatch(listed, '%d+') do out[#out + 1] = tonumber(i) end
      return out
    end
  end
end

local wanted = {}
for i = 1, n do wanted[i] = ARGV[HEAD + (i - 1) * WIDTH + 1] end
local held = redis.call('HMGET', running, unpack(wanted))
local stale, ended, over_now, finished, with_meta, records, counts = {}, {}, {}, {}, {}, {}, {}
for i = 1, n do
  local at = HEAD + (i - 1) * WIDTH
  local id, token, verb, a, b, c = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  if held[i] ~= token or over_now[id] then
    stale[#stale + 1] = i
  else
    ended[#ended + 1] = id
    over_now[id] = true
    if verb == 'd' then
      finished[#finished + 1] = id
      if a ~= '' then records[#records + 1] = a end
      if b == '1' then redis.call('ZADD', ids, now + ARGV[5], id) end
      if c == '1' then with_meta[#with_meta + 1] = id end
    elseif verb == 'r' then
      redis.call('ZADD', delayed, now + a, id)
      redis.call('HSET', meta, id, b)
    elseif verb == 'x' then
      redis.call('HSET', meta, id, a)
      redis.call('ZADD', dead, now, id)
    elseif verb == 'h' then
      local ready = string.match(token, ':(%d+)$')
      local flow = KEYS[FIRST_FLOW + tonumber(a) - 1]
      redis.call('LPUSH', flow, ready .. ':' .. id)
      redis.call('ZADD', KEYS[FIRST_READY + tonumber(b) - 1], ready, ARGV[HEAD + n * (WIDTH + 1) + tonumber(a)])
      if c ~= '' then redis.call('HSET', meta, id, c) end
    elseif verb == 'q' then
      local raw = redis.call('HGET', jobs, id) or ''
      redis.call('XADD', quarantine, 'MAXLEN', '~', ARGV[6], '*', 'at', now, 'code', a, 'reason', b, 'raw', raw)
      finished[#finished + 1] = id
      with_meta[#with_meta + 1] = id
    end
    local counter = ARGV[HEAD + n * WIDTH + i]
    counts[counter] = (counts[counter] or 0) + 1
  end
end
if #ended > 0 then
  redis.call('HDEL', running, unpack(ended))
  if redis.call('EXISTS', cancels) == 1 then redis.call('HDEL', cancels, unpack(ended)) end
end
if #finished > 0 then redis.call('HDEL', jobs, unpack(finished)) end
if #with_meta > 0 then redis.call('HDEL', meta, unpack(with_meta)) end
if #records > 0 and tonumber(ARGV[4]) > 0 then
  redis.call('LPUSH', recent, unpack(records))
  redis.call('LTRIM', recent, 0, ARGV[4] - 1)
end
for counter, count in pairs(counts) do redis.call('HINCRBY', stats, counter, count) end
-- The dead set is bounded: the oldest give way, at most a few hundred per call.
local over = math.min(redis.call('ZCARD', dead) - ARGV[3], 500)
if over > 0 then
  local gone, popped = {}, redis.call('ZPOPMIN', dead, over)
  for i = 1, #popped, 2 do gone[#gone + 1] = popped[i] end
  redis.call('HDEL', jobs, unpack(gone))
  redis.call('HDEL', meta, unpack(gone))
  redis.call('HINCRBY', stats, 'dead_dropped', #gone)
end
if batch > 0 then redis.call('HSET', settled, incarnation, batch .. '|' .. table.concat(stale, ',')) end
return {'ok', now, unpack(stale)}
