-- Sizes in bytes of what has a cap, kept in `stats` as jobs come and go, so that nothing is ever summed up.

-- Adds to a size; returns what it is now. One that somebody made unusable starts anew, and stops nothing.
local function grow(stats, size, by)
  local now = redis.pcall('HINCRBY', stats, size, by)
  if type(now) == 'number' and now >= 0 then return now end
  redis.pcall('HSET', stats, size, 0)
  return 0
end

-- What a dead job takes up. Nothing changes its envelope or its history while it is dead.
local function dead_size(jobs, meta, id)
  return redis.call('HSTRLEN', jobs, id) + redis.call('HSTRLEN', meta, id)
end
