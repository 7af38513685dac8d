#!lua flags=allow-oom
-- Counts members of groups that are gone as failed: nobody else will. A group that changed since it was read is left alone.
-- KEYS: those of lib/ties.lua
-- ARGV: '1' to do it, else it is only said; then for each group: its name, its field as read, members that are gone
-- Out:  {group...}
-- Redis does not roll back: a key of the wrong type must show before the first write.
check_ties()
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = {}
for i = 2, #ARGV, 3 do
  local name = ARGV[i]
  if redis.call('HGET', GROUPS, name) == ARGV[i + 1] then
    out[#out + 1] = name
    local group = ARGV[1] == '1' and group_of(name)
    if group then
      group.failed = group.failed + ARGV[i + 2]
      group.changed = true
    end
  end
end
keep_groups(now)
return out
