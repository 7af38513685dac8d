-- The public way in for clients that want an answer. Pushes to the inbox what is new; version 2.
-- KEYS: inbox, jobs, ids, running, delayed, dead, locks
-- ARGV: 'v2', then for each job: its id or '', the lock it must hold or '', its envelope (which holds the same id)
--       a lock is <kind>:<key>, for an envelope with that unique.key whose on_conflict is skip
-- Out:  for each job: 'created', or {its state, id} of the first of that id or lock. States: 'pending' 'running' 'delayed'
--       'dead' 'done' 'cancelled' 'expired' 'skipped' 'replaced' 'merged';
--       error REFUSED, and nothing is done, if an argument is missing or an envelope is larger than 393216 bytes
-- How a remembered job ended stands in the fraction of its score in `ids`, in eighths.
local ENDS = {'done', 'cancelled', 'expired', 'dead', 'skipped', 'replaced', 'merged'}
local inbox, jobs, ids, running, delayed, dead, locks = unpack(KEYS)
-- A lock is kept so long for an entry of the inbox. Whoever is admitted first has it in any case.
local RESERVED_MS = 3600000
if #KEYS ~= 7 or #ARGV % 3 ~= 1 or ARGV[1] ~= 'v2' then
  return redis.error_reply("REFUSED 7 keys, 'v2', then id, lock and envelope for each job")
end
for i = 2, #ARGV, 3 do
  local number = (i + 1) / 3
  if #ARGV[i + 2] > 393216 then
    return redis.error_reply('REFUSED envelope ' .. number .. ' is larger than 393216 bytes')
  end
  if ARGV[i + 1] ~= '' and ARGV[i] == '' then
    return redis.error_reply('REFUSED job ' .. number .. ' has a lock but no id')
  end
end
-- Redis does not roll back: a key of the wrong type must show before the first write.
redis.call('LLEN', inbox)
for _, key in ipairs({jobs, running, locks}) do redis.call('HLEN', key) end
for _, key in ipairs({ids, delayed, dead}) do redis.call('ZCARD', key) end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out, entries, reserved = {}, {}, {}

local function state_of(id)
  if redis.call('HEXISTS', jobs, id) == 1 then
    if redis.call('HEXISTS', running, id) == 1 then return 'running' end
    if redis.call('ZSCORE', delayed, id) then return 'delayed' end
    if redis.call('ZSCORE', dead, id) then return 'dead' end
    return 'pending'
  end
  local score = redis.call('ZSCORE', ids, id)
  if not score then return nil end
  if tonumber(score) == 1 then return 'pending' end
  return tonumber(score) > now and ENDS[score % 1 * 8 + 1] or nil
end

-- Who holds a lock, and its state.
local function holder_of(lock)
  local id, letter, ends = string.match(redis.call('HGET', locks, lock) or '', '^([^|]*)|(%a)|(%d+)|')
  if not id or (ends ~= '0' and tonumber(ends) <= now) then return nil end
  local state = state_of(id) or letter == 't' and 'done'
  -- Dead ones stand for nobody.
  if state == 'dead' then return nil end
  return state and {state, id} or nil
end

for i = 2, #ARGV, 3 do
  local id, lock = ARGV[i], ARGV[i + 1]
  local state = id ~= '' and (reserved[id] and 'pending' or state_of(id))
  local first = state and {state, id} or lock ~= '' and holder_of(lock)
  if first then
    out[#out + 1] = first
  else
    if id ~= '' then
      redis.call('ZADD', ids, 1, id)
      reserved[id] = true
    end
    if lock ~= '' then
      redis.call('HSET', locks, lock, string.format('%s|f|%d|%d', id, now + RESERVED_MS, now))
    end
    entries[#entries + 1] = ARGV[i + 2]
    out[#out + 1] = 'created'
  end
end
for from = 1, #entries, 500 do
  redis.call('RPUSH', inbox, unpack(entries, from, math.min(from + 499, #entries)))
end
return out
