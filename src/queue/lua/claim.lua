#!lua flags=allow-oom
-- Takes jobs from the given flows in the order of effective class, then ready time, and puts them under a token.
-- KEYS: workers, running, jobs, meta, tomb, delayed, ties, locks, merges, ready x5, flow...
-- ARGV: incarnation, claim number, limit, ageing ms, then for each flow: priority number (1..5), kind, allowance
-- Out:  {now_ms, next due ms or -1, {head ready ms of each flow or -1...}, {flow number, jobs of it in a row, ...},
--       {entry, envelope, ... for each job}, {job number, history, ... where it has one},
--       {job number, its ties, envelopes to be united with its own or '', ... where it has ties}};
--       error LEASE if not registered
local workers, running, jobs, meta, tomb, delayed, ties, locks, merges = unpack(KEYS, 1, 9)
local FIRST_READY, FIRST_FLOW = 10, 15
local limit, aging = tonumber(ARGV[3]), tonumber(ARGV[4])
if not redis.call('ZSCORE', workers, ARGV[1]) then return redis.error_reply('LEASE lost') end
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({running, jobs, meta}) do redis.call('HLEN', key) end
for k = FIRST_READY, FIRST_FLOW - 1 do redis.call('ZCARD', KEYS[k]) end
local stoned = redis.call('HLEN', tomb) > 0
local troubled = redis.call('HLEN', meta) > 0
local bound = redis.call('HLEN', ties) > 0
if bound then
  for _, key in ipairs({locks, merges}) do redis.call('HLEN', key) end
end
local due = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

-- The ready time of an entry; 0 for one that nobody of us wrote, so that it is taken, found to be no job, and dropped.
local function ready_of(entry)
  return tonumber(string.match(entry, '^(%d%d%d%d%d%d%d%d%d%d%d%d%d):')) or 0
end

local function head_of(key)
  local head = redis.call('LINDEX', key, 0)
  return head and ready_of(head)
end

local flows = {}
for f = 1, #KEYS - FIRST_FLOW + 1 do
  local at = 4 + (f - 1) * 3
  flows[f] = {key = KEYS[FIRST_FLOW + f - 1], class = tonumber(ARGV[at + 1]), kind = ARGV[at + 2],
    allow = tonumber(ARGV[at + 3]), head = head_of(KEYS[FIRST_FLOW + f - 1])}
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
    local ready = ready_of(entry)
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
  best.head = head_of(best.key)
end

local next_due = tonumber(due[2] or -1)
local heads, rows, taken, histories, tied = {}, {}, {}, {}, {}
local out = {now, next_due < 1e13 and math.floor(math.max(next_due, -1)) or -1, heads, rows, taken, histories, tied}
for f, flow in ipairs(flows) do
  local ready = KEYS[FIRST_READY + flow.class - 1]
  if not flow.head then
    redis.call('ZREM', ready, flow.kind)
  elseif flow.touched then
    redis.call('ZADD', ready, flow.head, flow.kind)
  end
  flow.number = f
  heads[f] = flow.head or -1
end
if #picked == 0 then return out end

local ids = {}
for i, entry in ipairs(picked) do ids[i] = string.sub(entry, 15) end
local raws = redis.call('HMGET', jobs, unpack(ids))
local metas = troubled and redis.call('HMGET', meta, unpack(ids)) or {}
local bonds = bound and redis.call('HMGET', ties, unpack(ids)) or {}

-- Whether a cancelled job left this entry behind.
local function left_behind(entry, id)
  local count, at = string.match(redis.call('HGET', tomb, id) or '', '^(%d+):(%d+)$')
  if not count or ready_of(entry) > tonumber(at) then return false end
  if tonumber(count) > 1 then
    redis.call('HSET', tomb, id, string.format('%d:%s', count - 1, at))
  else
    redis.call('HDEL', tomb, id)
  end
  return true
end

-- A lock that is held until the claim is given up; what waits to be united with the job is told.
local function tell_ties(id, number, bond)
  for lock in string.gmatch('\n' .. bond, '\nc([^\n]+)') do
    local held = redis.call('HGET', locks, lock)
    if held and string.sub(held, 1, #id + 1) == id .. '|' then redis.call('HDEL', locks, lock) end
  end
  tied[#tied + 1], tied[#tied + 2], tied[#tied + 3] = number, bond, redis.call('HGET', merges, id) or ''
end

local prefix, tokens, n, flow = ARGV[1] .. ':' .. ARGV[2] .. ':', {}, 0, nil
for i, entry in ipairs(picked) do
  local id, raw = ids[i], raws[i]
  if not (stoned and left_behind(entry, id)) and raw then
    tokens[n + 1], tokens[n + 2] = id, prefix .. string.sub(entry, 1, 13)
    taken[n + 1], taken[n + 2] = entry, raw
    n = n + 2
    if origin[i] ~= flow then
      flow = origin[i]
      rows[#rows + 1], rows[#rows + 2] = flow.number, 0
    end
    rows[#rows] = rows[#rows] + 1
    if metas[i] then histories[#histories + 1], histories[#histories + 2] = n / 2, metas[i] end
    if bonds[i] then tell_ties(id, n / 2, bonds[i]) end
  end
end
if n > 0 then redis.call('HSET', running, unpack(tokens)) end
return out
