-- Members as admission takes them into their groups. Needs groups.lua, ties.lua. A rule is
-- '<size>|<s success or a always>|<what follows, without its last brace, or nothing>'.
local joining = {}

local function found(name, rule)
  local size, when, follows = string.match(rule, '^(%d+)|(%a)|(.*)$')
  local group = group_of(name)
  if not group then
    group = {size = tonumber(size), when = when, members = 0, done = 0, failed = 0, state = 'o'}
    groups[name] = group
  end
  return group, tonumber(size), follows
end

-- Takes one more in.
local function enter(group, name, follows)
  group.members, group.changed = group.members + 1, true
  if follows ~= '' and group.state == 'o' then redis.call('HSETNX', GROUP_THEN, name, follows) end
end

-- Whether an id counts in a group already, or will.
local function is_known(ids, name, id, now)
  if group_in(redis.call('HGET', TIES, id)) == name then return true end
  local marked = redis.call('ZSCORE', ids, name .. ':' .. id)
  return marked and tonumber(marked) > now
end

-- Takes a job in; else says what is wrong, or 'cancelled' and nothing.
function joining.join(ids, name, id, rule, now)
  local group, size, follows = found(name, rule)
  if group.state == 'c' then return 'cancelled' end
  -- What was refused under this id before counts no more.
  if id ~= '' then forget_refused(ids, name, id) end
  if group.size ~= size then return 'wrong', 'was begun with size ' .. group.size end
  if group.members >= group.size then return 'wrong', 'has all its ' .. group.size .. ' members already' end
  enter(group, name, follows)
end

-- Counts one that can't be a job as a member that failed, so that its group does not wait for it: once for each id, as
-- far as that is known. Whether it was counted.
function joining.refuse(ids, name, id, rule, how, now)
  local group, _, follows = found(name, rule)
  if group.state ~= 'o' or group.members >= group.size or id ~= '' and is_known(ids, name, id, now) then return false end
  enter(group, name, follows)
  if id ~= '' then mark_refused(ids, name, id, now) end
  count_member(name, false, id ~= '' and string.format('{"id":"%s","state":"%s","at":%.0f}', id, how, now) or nil)
  return true
end
