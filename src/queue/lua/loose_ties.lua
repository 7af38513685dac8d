#!lua flags=allow-oom
-- One bounded step through the ties, for those of jobs that are gone: what they are tied to is let go of, as if they had
-- been purged.
-- KEYS: those of lib/ties.lua, jobs
-- ARGV: cursor, ties looked at in about, '1' to let go of them, else they are only told
-- Out:  {next cursor, id...}
local jobs = KEYS[10]
-- Redis does not roll back: a key of the wrong type must show before the first write.
check_ties()
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local step = redis.call('HSCAN', TIES, ARGV[1], 'COUNT', ARGV[2])
local out, found = {step[1]}, step[2]
for i = 1, #found, 2 do
  if redis.call('HEXISTS', jobs, found[i]) == 0 then
    out[#out + 1] = found[i]
    if ARGV[3] == '1' then untie(found[i], found[i + 1], 'purged', nil, nil, now) end
  end
end
keep_groups(now)
return out
