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

-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({jobs, meta, stats, settled}) do redis.call('HLEN', key) end
for _, key in ipairs({delayed, dead, ids, unpack(KEYS, FIRST_READY, FIRST_FLOW - 1)}) do redis.call('ZCARD', key) end
for k = FIRST_FLOW, #KEYS do redis.call('LLEN', KEYS[k]) end
redis.call('LLEN', recent)
redis.call('XLEN', quarantine)
local asked = redis.call('HLEN', cancels) > 0

local wanted = {}
for i = 1, n do wanted[i] = ARGV[HEAD + (i - 1) * WIDTH + 1] end
local held = redis.call('HMGET', running, unpack(wanted))
local stale, ended, over_now, finished, with_meta, records, counts = {}, {}, {}, {}, {}, {}, {}
local handed_back, remembered, not_again = {}, 0, {}
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
      if b == '1' and tonumber(ARGV[5]) > 0 then
        redis.call('ZADD', ids, now + ARGV[5], id)
        remembered = remembered + 1
      end
      if c == '1' then with_meta[#with_meta + 1] = id end
    elseif verb == 'r' then
      redis.call('ZADD', delayed, now + a, id)
      redis.call('HSET', meta, id, b)
    elseif verb == 'x' then
      redis.call('HSET', meta, id, a)
      redis.call('ZADD', dead, now, id)
    elseif verb == 'h' then
      local f = tonumber(a)
      local back = handed_back[f]
      if not back then back = {ready = KEYS[FIRST_READY + tonumber(b) - 1]}; handed_back[f] = back end
      back[#back + 1] = string.format('%013d:%s', string.match(token, ':(%d+)$') or now, id)
      if c ~= '' then redis.call('HSET', meta, id, c) end
    elseif verb == 'q' then
      local raw = redis.call('HGET', jobs, id) or ''
      redis.call('XADD', quarantine, 'MAXLEN', '~', ARGV[6], '*', 'at', now, 'code', a, 'reason', b, 'raw', raw)
      finished[#finished + 1] = id
      with_meta[#with_meta + 1] = id
    end
    if verb ~= 'r' and verb ~= 'h' then not_again[#not_again + 1] = id end
    local counter = ARGV[HEAD + n * WIDTH + i]
    counts[counter] = (counts[counter] or 0) + 1
  end
end

-- Puts jobs back where they stood: before what became ready later, behind what became ready earlier.
local function put_back(flow, back, kind)
  local newest, order = '', {}
  for i, entry in ipairs(back) do
    order[i] = {string.sub(entry, 1, 13), i, entry}
    newest = order[i][1] > newest and order[i][1] or newest
  end
  -- More than a few hundred can't have been put back before them just now.
  local older = 0
  for i, entry in ipairs(redis.call('LRANGE', flow, 0, 499)) do
    local ready = string.sub(entry, 1, 13)
    if ready >= newest then break end
    order[#order + 1] = {ready, n + i, entry}
    older = i
  end
  table.sort(order, function(x, y) return x[1] < y[1] or (x[1] == y[1] and x[2] < y[2]) end)
  if older > 0 then redis.call('LPOP', flow, older) end
  local entries = {}
  for i = #order, 1, -1 do entries[#entries + 1] = order[i][3] end
  redis.call('LPUSH', flow, unpack(entries))
  redis.call('ZADD', back.ready, tonumber(order[1][1]) or 0, kind)
end

for f, back in pairs(handed_back) do
  put_back(KEYS[FIRST_FLOW + f - 1], back, ARGV[HEAD + n * (WIDTH + 1) + f])
end
if #ended > 0 then redis.call('HDEL', running, unpack(ended)) end
-- A request to end a job outlives a delivery that did not end it.
if asked and #not_again > 0 then redis.call('HDEL', cancels, unpack(not_again)) end
if #finished > 0 then redis.call('HDEL', jobs, unpack(finished)) end
if #with_meta > 0 then redis.call('HDEL', meta, unpack(with_meta)) end
if #records > 0 and tonumber(ARGV[4]) > 0 then
  redis.call('LPUSH', recent, unpack(records))
  redis.call('LTRIM', recent, 0, ARGV[4] - 1)
end
for counter, count in pairs(counts) do redis.pcall('HINCRBY', stats, counter, count) end
-- The dead set is bounded: the oldest give way, at most a few hundred per call.
local over = math.min(redis.call('ZCARD', dead) - ARGV[3], 500)
if over > 0 then
  local gone, popped = {}, redis.call('ZPOPMIN', dead, over)
  for i = 1, #popped, 2 do gone[#gone + 1] = popped[i] end
  redis.call('HDEL', jobs, unpack(gone))
  redis.call('HDEL', meta, unpack(gone))
  redis.pcall('HINCRBY', stats, 'dead_dropped', #gone)
end
-- Ids whose time of being remembered is over go, at least as fast as new ones come.
if remembered > 0 then
  local over = redis.call('ZRANGE', ids, '(1', now, 'BYSCORE', 'LIMIT', 0, remembered + 16)
  if #over > 0 then redis.call('ZREM', ids, unpack(over)) end
end
if batch > 0 then redis.call('HSET', settled, incarnation, batch .. '|' .. table.concat(stale, ',')) end
return {'ok', now, unpack(stale)}
