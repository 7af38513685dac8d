-- Groups and how their members are counted. For scripts whose first keys are those of ties.lua.
-- groups: group → '<size>|<s or a>|<members>|<done>|<failed>|<o open, d done, f failed, c cancelled>'
-- group_then: group → the envelope that follows, without its last brace
-- group_results: group → '+' or '!' (cut), then what is told of its members, joined by ','
-- group_times: group by the ms of its last change
-- `ids` holds '<group>:<id>' for an id that was counted in a group but is no job of it any more, so that whatever comes
-- under it later is not counted as another member: as long as the id of an ended job is remembered, or for a year, and
-- with this fraction, where it was refused or set aside and may come back.
local REFUSED = 0.875
local GROUPS, GROUP_THEN, GROUP_RESULTS, GROUP_TIMES, INBOX = unpack(KEYS, 5, 9)
local TOLD_MAX, YEAR_MS = 262144, 31536000000
local groups, told_of, member_of = {}, {}, {}

local function group_of(name)
  local group = groups[name]
  if group == nil then
    local text = redis.call('HGET', GROUPS, name) or ''
    local size, when, members, done, failed, state = string.match(text, '^(%d+)|(%a)|(%d+)|(%d+)|(%d+)|(%a)$')
    group = size and {size = tonumber(size), when = when, members = tonumber(members), done = tonumber(done),
      failed = tonumber(failed), state = state} or false
    groups[name] = group
  end
  return group
end

-- Counts the end of a member; written by `keep_groups`.
local function count_member(name, good, outcome)
  local group = group_of(name)
  if not group then return end
  if good then group.done = group.done + 1 else group.failed = group.failed + 1 end
  group.changed = true
  told_of[name] = told_of[name] or {}
  if outcome then table.insert(told_of[name], outcome) end
end

-- The group a job counts, or was counted, in.
local function group_in(tied) return string.match('\n' .. (tied or ''), '\n[gG]([^\n]+)') end

-- Remembers that an id was counted, until a time.
local function mark_member(ids, name, id, until_ms)
  redis.call('ZADD', ids, string.format('%.3f', until_ms), name .. ':' .. id)
end

-- The same for one that may come back.
local function mark_refused(ids, name, id, now) mark_member(ids, name, id, now + YEAR_MS + REFUSED) end

-- One that was refused, and counted as failed, is about to come back. Of one with an id it is known whether it has done
-- so already.
local function forget_refused(ids, name, id)
  if id ~= '' then
    local marked = redis.call('ZSCORE', ids, name .. ':' .. id)
    if not marked or tonumber(marked) % 1 ~= REFUSED then return end
    redis.call('ZREM', ids, name .. ':' .. id)
  end
  local group = group_of(name)
  if not group or group.failed == 0 or group.members == 0 then return end
  group.failed, group.members, group.changed = group.failed - 1, group.members - 1, true
end

-- What is told of the members of a group so far, and of those that ended just now.
local function told_in_all(name)
  local told = redis.call('HGET', GROUP_RESULTS, name) or '+'
  local parts, bytes, cut = {}, #told, string.sub(told, 1, 1) == '!'
  for _, outcome in ipairs(told_of[name] or {}) do
    bytes = bytes + #outcome + 1
    cut = cut or bytes > TOLD_MAX
    if cut then break end
    parts[#parts + 1] = outcome
  end
  local before = string.sub(told, 2)
  if before ~= '' then table.insert(parts, 1, before) end
  return cut, table.concat(parts, ',')
end

-- A group whose members have all ended is over, and what follows it goes to the inbox.
local function end_group(name, group, now)
  local good = group.when == 'a' or group.failed == 0
  group.state = good and 'd' or 'f'
  local follows = redis.call('HGET', GROUP_THEN, name)
  if good and follows then
    local cut, told = told_in_all(name)
    redis.call('RPUSH', INBOX, string.format(
      '%s,"parents":[{"id":"%s","state":"group","at":%d,"result":{"size":%d,"done":%d,"failed":%d,"cut":%s}}%s%s]}',
      follows, name, now, group.size, group.done, group.failed, tostring(cut), told == '' and '' or ',', told))
  end
  redis.call('HDEL', GROUP_THEN, name)
  redis.call('HDEL', GROUP_RESULTS, name)
end

-- Writes the groups that changed: once, at the end of a script.
local function keep_groups(now)
  for name, group in pairs(groups) do
    if group and group.changed then
      if group.state == 'o' and group.done + group.failed >= group.size then
        end_group(name, group, now)
      elseif group.state == 'o' and told_of[name] then
        local cut, told = told_in_all(name)
        redis.call('HSET', GROUP_RESULTS, name, (cut and '!' or '+') .. told)
      end
      redis.call('HSET', GROUPS, name, string.format('%d|%s|%d|%d|%d|%s', group.size, group.when, group.members,
        group.done, group.failed, group.state))
      redis.call('ZADD', GROUP_TIMES, now, name)
    end
  end
end
