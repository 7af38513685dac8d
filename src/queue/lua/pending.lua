#!lua flags=no-writes
-- One bounded step through all jobs, for those that are in none of the places where a job is told by its id: they should
-- wait in a flow. Writes nothing.
-- KEYS: jobs, running, delayed, dead
-- ARGV: cursor, jobs looked at in about
-- Out:  {next cursor, id...}
local jobs, running, delayed, dead = unpack(KEYS)
local step = redis.call('HSCAN', jobs, ARGV[1], 'COUNT', ARGV[2])
local out, found = {step[1]}, step[2]
for i = 1, #found, 2 do
  local id = found[i]
  if redis.call('HEXISTS', running, id) == 0 and not redis.call('ZSCORE', delayed, id)
    and not redis.call('ZSCORE', dead, id) then
    out[#out + 1] = id
  end
end
return out
