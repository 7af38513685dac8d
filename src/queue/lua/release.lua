-- Puts quarantined entries back into the inbox, to be judged anew.
-- KEYS: quarantine, inbox
-- ARGV: entry id... (at most 100)
-- Out:  number put back
local moved = 0
for _, id in ipairs(ARGV) do
  local found = redis.call('XRANGE', KEYS[1], id, id)
  if found[1] then
    local fields = found[1][2]
    for i = 1, #fields, 2 do
      if fields[i] == 'raw' then redis.call('RPUSH', KEYS[2], fields[i + 1]) end
    end
    redis.call('XDEL', KEYS[1], id)
    moved = moved + 1
  end
end
return moved
