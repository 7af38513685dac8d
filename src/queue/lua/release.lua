-- Puts quarantined entries back into the inbox, to be judged anew.
-- KEYS: quarantine, inbox, stats
-- ARGV: entry id... (at most 100)
-- Out:  number put back
local quarantine, inbox, stats = unpack(KEYS)
-- Redis does not roll back: a key of the wrong type must show before the first write.
redis.call('LLEN', inbox)
redis.call('HLEN', stats)
local moved = 0
for _, id in ipairs(ARGV) do
  local fields = quarantining.take(quarantine, stats, id)
  if fields then
    for i = 1, #fields, 2 do
      if fields[i] == 'raw' then redis.call('RPUSH', inbox, fields[i + 1]) end
    end
    moved = moved + 1
  end
end
return moved
