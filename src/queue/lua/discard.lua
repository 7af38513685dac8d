#!lua flags=allow-oom
-- Removes quarantined entries for good: those named, and the oldest that are older than a time.
-- KEYS: quarantine, stats
-- ARGV: ms before which an entry came that is too old (0: none is), entries removed for their age at most, entry id...
--       (at most 100)
-- Out:  number removed of those named, number removed for their age
local quarantine, stats = unpack(KEYS)
redis.call('HLEN', stats)
local named, old = 0, 0
for i = 3, #ARGV do
  if quarantining.take(quarantine, stats, ARGV[i]) then named = named + 1 end
end
while old < tonumber(ARGV[2]) do
  local oldest = redis.call('XRANGE', quarantine, '-', '+', 'COUNT', 1)[1]
  -- An entry's own id begins with the time at which Redis took it in.
  if not oldest or tonumber(string.match(oldest[1], '^%d+')) >= tonumber(ARGV[1]) then break end
  quarantining.take(quarantine, stats, oldest[1])
  old = old + 1
end
if old > 0 then redis.pcall('HINCRBY', stats, 'quarantine_aged', old) end
return {named, old}
