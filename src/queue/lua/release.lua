-- Puts quarantined entries back into the inbox, to be judged anew.
-- Members of groups that were counted as failed count no more.
-- KEYS: those of lib/ties.lua, quarantine, stats, ids
-- ARGV: entry id... (at most 100)
-- Out:  number put back
local quarantine, stats, ids = unpack(KEYS, 10)
-- Redis does not roll back: a key of the wrong type must show before the first write.
check_ties()
redis.call('HLEN', stats)
redis.call('ZCARD', ids)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local moved = 0
for _, id in ipairs(ARGV) do
  local fields = quarantining.take(quarantine, stats, id)
  if fields then
    local of = {}
    for i = 1, #fields, 2 do of[fields[i]] = fields[i + 1] end
    if of.raw then redis.call('RPUSH', INBOX, of.raw) end
    if of.group then forget_refused(ids, of.group, of.member) end
    moved = moved + 1
  end
end
keep_groups(now)
return moved
