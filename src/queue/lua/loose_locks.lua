#!lua flags=allow-oom
-- One bounded step through the locks, for those that nobody will give up: their job is gone, or is not tied to them.
-- KEYS: locks, jobs, times of locks that outlive their jobs, ties
-- ARGV: cursor, locks looked at in about, '1' to release them, else they are only told
-- Out:  {next cursor, lock...}
local locks, jobs, lock_ends, ties = unpack(KEYS)
redis.call('ZCARD', lock_ends)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

-- Whether a lock that is held by a job until it ends is among its ties.
local function is_tied(id, letter, lock)
  local tied = '\n' .. (redis.call('HGET', ties, id) or '') .. '\n'
  return string.find(tied, '\n' .. letter .. lock .. '\n', 1, true) ~= nil
end

local step = redis.call('HSCAN', locks, ARGV[1], 'COUNT', ARGV[2])
local out, found = {step[1]}, step[2]
for i = 1, #found, 2 do
  local id, letter, ends = string.match(found[i + 1], '^([^|]*)|(%a)|(%d+)|')
  local lasting = id and letter ~= 't' and ends == '0'
  local loose = not id
  if id and redis.call('HEXISTS', jobs, id) == 0 then
    -- A lock may be reserved for an entry of the inbox, and one with a time to live outlives its job: until it ends.
    loose = lasting or ends ~= '0' and tonumber(ends) < now
  elseif lasting then
    loose = not is_tied(id, letter, found[i])
  end
  if loose then
    out[#out + 1] = found[i]
    if ARGV[3] == '1' then
      redis.call('HDEL', locks, found[i])
      redis.call('ZREM', lock_ends, found[i])
    end
  end
end
return out
