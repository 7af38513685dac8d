-- Takes jobs from the given flows in the order of effective class, then ready time, and puts them under a token.
-- KEYS: workers, running, jobs, meta, tomb, delayed, ready x5, flow...
-- ARGV: incarnation, claim number, limit, ageing ms, then for each flow: priority number (1..5), kind, allowance
-- Out:  {now_ms, next due ms or -1, head ready ms of each flow or -1..., then for each job: flow number, ready ms, id,
--       envelope, meta or ''}; error LEASE if not registered
local workers, running, jobs, meta, tomb, delayed = unpack(KEYS, 1, 6)
local FIRST_READY, FIRST_FLOW = 7, 12
local limit, aging = tonumber(ARGV[3]), tonumber(ARGV[4])
if not redis.call('ZSCORE', workers, ARGV[1]) then return redis.error_reply('LEASE lost') end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local flows = {}
for f = 1, #KEYS - FIRST_FLOW + 1 do
  local at = 4 + (f - 1) * 3
  local head = redis.call('LINDEX', KEYS[FIRST_FLOW + f - 1], 0)
  flows[f] = {key = KEYS[FIRST_FLOW + f - 1], class = tonumber(ARGV[at + 1]), kind = ARGV[at + 2],
    allow = tonumber(ARGV[at + 3]), head = head and tonumber(string.sub(head, 1, 13))}
end

local function rank(flow, ready)
  return math.max(1, flow.class - math.floor(math.max(0, now - ready) / aging))
end

-- The flow whose head is first in the order, and the one after it.
local function first_two()
  local best, second
  for _, flow in ipairs(flows) do
    if flow.head and flow.allow > 0 then
      flow.rank = rank(flow, flow.head)
      if not best or flow.rank < best.rank or (flow.rank == best.rank and flow.head < best.head) then
        best, second = flow, best
      elseif not second or flow.rank < second.rank or (flow.rank == second.rank and flow.head < second.head) then
        second = flow
      end
    end
  end
  return best, second
end

-- How many of a flow's first entries come before the head of `second`: at least one.
local function run_length(flow, second, most)
  if not second then return most end
  local chunk = redis.call('LRANGE', flow.key, 1, math.min(most, 64) - 1)
  for i, entry in ipairs(chunk) do
    local ready = tonumber(string.sub(entry, 1, 13))
    local class = rank(flow, ready)
    if class > second.rank or (class == second.rank and ready > second.head) then return i end
  end
  return #chunk + 1
end

local picked, origin = {}, {}
while #picked < limit do
  local best, second = first_two()
  if not best then break end
  local count = run_length(best, second, math.min(limit - #picked, best.allow))
  local entries = redis.call('LPOP', best.key, count)
  for _, entry in ipairs(entries) do
    picked[#picked + 1] = entry
    origin[#picked] = best
  end
  best.allow = best.allow - #entries
  best.touched = true
  local head = redis.call('LINDEX', best.key, 0)
  best.head = head and tonumber(string.sub(head, 1, 13))
end

local due = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
local out = {now, due[2] and math.floor(tonumber(due[2])) or -1}
for f, flow in ipairs(flows) do
  local ready = KEYS[FIRST_READY + flow.class - 1]
  if not flow.head then
    redis.call('ZREM', ready, flow.kind)
  elseif flow.touched then
    redis.call('ZADD', ready, flow.head, flow.kind)
  end
  flow.number = f
  out[#out + 1] = flow.head or -1
end
if #picked == 0 then return out end

local ids = {}
for i, entry in ipairs(picked) do ids[i] = string.sub(entry, 15) end
local raws = redis.call('HMGET', jobs, unpack(ids))
local metas = redis.call('EXISTS', meta) == 1 and redis.call('HMGET', meta, unpack(ids)) or {}
local stones = redis.call('EXISTS', tomb) == 1 and redis.call('HMGET', tomb, unpack(ids)) or {}
local prefix, tokens, left = ARGV[1] .. ':' .. ARGV[2] .. ':', {}, {}
for i, id in ipairs(ids) do
  if stones[i] then left[id] = left[id] or tonumber(stones[i]) end
  if left[id] and left[id] > 0 then
    -- A cancelled job left this entry behind.
    left[id] = left[id] - 1
    if left[id] > 0 then redis.call('HSET', tomb, id, left[id]) else redis.call('HDEL', tomb, id) end
  elseif raws[i] then
    local ready = string.sub(picked[i], 1, 13)
    tokens[#tokens + 1] = id
    tokens[#tokens + 1] = prefix .. ready
    local at = #out
    out[at + 1], out[at + 2], out[at + 3], out[at + 4], out[at + 5] =
      origin[i].number, ready, id, raws[i], metas[i] or ''
  end
end
if #tokens > 0 then redis.call('HSET', running, unpack(tokens)) end
return out
