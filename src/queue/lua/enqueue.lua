-- The public way in for clients that want an answer. Pushes to the inbox what is new; version 1.
-- KEYS: inbox, jobs, ids, running, delayed, dead
-- ARGV: for each job: its id or '', its envelope (which holds the same id)
-- Out:  for each job: 'created', or the state of the first of that id: 'pending' 'running' 'delayed' 'dead' 'done';
--       error REFUSED, and nothing is done, if an argument is missing or an envelope is larger than 393216 bytes
local inbox, jobs, ids, running, delayed, dead = unpack(KEYS)
if #KEYS ~= 6 or #ARGV % 2 ~= 0 then return redis.error_reply('REFUSED 6 keys, then pairs of id and envelope') end
for i = 2, #ARGV, 2 do
  if #ARGV[i] > 393216 then return redis.error_reply('REFUSED envelope ' .. i / 2 .. ' is larger than 393216 bytes') end
end
-- Redis does not roll back: a key of the wrong type must show before the first write.
redis.call('LLEN', inbox)
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
  return tonumber(score) > now and 'done' or nil
end

for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  local state = id ~= '' and (reserved[id] and 'pending' or state_of(id))
  if state then
    out[#out + 1] = state
  else
    if id ~= '' then
      redis.call('ZADD', ids, 1, id)
      reserved[id] = true
    end
    entries[#entries + 1] = ARGV[i + 1]
    out[#out + 1] = 'created'
  end
end
for from = 1, #entries, 500 do
  redis.call('RPUSH', inbox, unpack(entries, from, math.min(from + 499, #entries)))
end
return out
