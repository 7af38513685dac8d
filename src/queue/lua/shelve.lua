#!lua flags=allow-oom
-- Puts waiting jobs among the dead, each with an event; dead ones stay, with the event. As with any job that dies, locks
-- are given up. Jobs that others depend on stay as they are.
-- KEYS: those of lib/ties.lua, jobs, running, delayed, dead, tomb, meta, stats
-- ARGV: the state they must be in ('pending', 'delayed', 'dead'), then for each (at most 100 of them): id, history of a
--       job that has none, event
-- Out:  for each: 1, or 0 if it is in another state by now, or 2 if it belongs to a group or workflow, or if others were
--       merged into it
local jobs, running, delayed, dead, tomb, meta, stats = unpack(KEYS, 10)
local wanted, out = ARGV[1], {}
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({jobs, running, tomb, meta, stats}) do redis.call('HLEN', key) end
for _, key in ipairs({delayed, dead}) do redis.call('ZCARD', key) end
local bound = redis.call('HLEN', TIES) > 0
if bound then check_ties() end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local function state_of(id)
  if redis.call('HEXISTS', jobs, id) == 0 then return 'gone' end
  if redis.call('HEXISTS', running, id) == 1 then return 'running' end
  if redis.call('ZSCORE', delayed, id) then return 'delayed' end
  if redis.call('ZSCORE', dead, id) then return 'dead' end
  return 'pending'
end

for i = 2, #ARGV, 3 do
  local id = ARGV[i]
  local tied = bound and redis.call('HGET', TIES, id) or ''
  local answer = state_of(id) ~= wanted and 0
    or (string.find('\n' .. tied, '\n[gGw]') or redis.call('HEXISTS', MERGES, id) == 1) and 2 or 1
  if answer == 1 then
    local counted = wanted == 'dead' and dead_size(jobs, meta, id) or 0
    if wanted == 'delayed' then
      redis.call('ZREM', delayed, id)
    elseif wanted == 'pending' then
      lay_stone(tomb, id, now)
    end
    redis.call('ZADD', dead, 'NX', now, id)
    redis.call('HSET', meta, id, (redis.call('HGET', meta, id) or ARGV[i + 1]) .. '\t' .. ARGV[i + 2])
    grow(stats, 'dead_bytes', dead_size(jobs, meta, id) - counted)
    if tied ~= '' then untie(id, tied, 'dead', nil, nil, now) end
  end
  out[#out + 1] = answer
end
return out
