#!lua flags=allow-oom
-- One bounded step through the locks, for those whose job is gone though only a job may hold them.
-- KEYS: locks, jobs, times of locks that outlive their jobs
-- ARGV: cursor, locks looked at in about, '1' to release them, else they are only told
-- Out:  {next cursor, lock...}
local locks, jobs, lock_ends = unpack(KEYS)
redis.call('ZCARD', lock_ends)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local step = redis.call('HSCAN', locks, ARGV[1], 'COUNT', ARGV[2])
local out, found = {step[1]}, step[2]
for i = 1, #found, 2 do
  local id, letter, ends = string.match(found[i + 1], '^([^|]*)|(%a)|(%d+)|')
  -- A lock may be reserved for an entry of the inbox, and one with a time to live outlives its job: until it ends.
  if not id or redis.call('HEXISTS', jobs, id) == 0 and (letter ~= 't' and ends == '0' or ends ~= '0' and tonumber(ends) < now) then
    out[#out + 1] = found[i]
    if ARGV[3] == '1' then
      redis.call('HDEL', locks, found[i])
      redis.call('ZREM', lock_ends, found[i])
    end
  end
end
return out
