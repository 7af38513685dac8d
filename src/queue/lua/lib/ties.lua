-- What a job is tied to besides its flow, and how an end lets go of it. For scripts whose first nine keys are these:
-- ties: id → fields joined by '\n'. 'f', 'c', 't': a lock, held until the job is finished, is claimed, or time is over;
--   'k': the class and key of its flow, where its envelope alone does not say them; 'g': its group; 'r': ms for which its result is kept; 'w': the workflow it belongs to;
--   'i': an app gave its id, which the envelope may not tell any more once it is that of a later job under its lock
-- locks: lock → '<id>|<f, c or t>|<ms when it is gone, or 0>|<ms of the first job under it>'
-- lock_ends: locks that outlive their jobs, by the ms when they are gone
-- merges: id → envelopes that are to be united with its own, joined by ','
-- groups: group → '<size>|<s or a>|<members>|<done>|<failed>|<o open, d done, f failed, c cancelled>'
-- group_then: group → the envelope that follows, without its last brace
-- group_results: group → '+' or '!' (cut), then what is told of its members, joined by ','
-- group_times: group by the ms of its last change
local TIES, LOCKS, LOCK_ENDS, MERGES, GROUPS, GROUP_THEN, GROUP_RESULTS, GROUP_TIMES, INBOX = unpack(KEYS, 1, 9)
local TOLD_MAX = 262144
local groups, told_of = {}, {}

-- Redis does not roll back: a key of the wrong type must show before the first write.
local function check_ties()
  for _, key in ipairs({TIES, LOCKS, MERGES, GROUPS, GROUP_THEN, GROUP_RESULTS}) do redis.call('HLEN', key) end
  for _, key in ipairs({LOCK_ENDS, GROUP_TIMES}) do redis.call('ZCARD', key) end
  redis.call('LLEN', INBOX)
end

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
  table.insert(told_of[name], outcome)
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

-- Whether an app gave the id of a job with these ties.
local function id_was_given(tied) return string.find('\n' .. tied .. '\n', '\ni\n', 1, true) ~= nil end

-- Gives up a lock, if the job still holds it.
local function unlock(name, id)
  local held = redis.call('HGET', LOCKS, name)
  if held and string.sub(held, 1, #id + 1) == id .. '|' then
    redis.call('HDEL', LOCKS, name)
    redis.call('ZREM', LOCK_ENDS, name)
  end
end

local function put_result(key, ttl, outcome)
  redis.call('DEL', key)
  redis.call('RPUSH', key, outcome)
  -- At most a week, whatever stands in storage: what fails here would fail half way.
  redis.call('PEXPIRE', key, string.format('%.0f', math.min(tonumber(ttl) or 0, 604800000)))
end

-- Lets go of what a job was tied to; `tied` is its field of `ties`. `how` it ended is 'done', 'dead', 'cancelled',
-- 'expired', 'quarantined' or 'purged'. `outcome` is what is told of it, and `result_key` where, both or neither given.
-- A dead job may be run again: it keeps what that needs.
local function untie(id, tied, how, outcome, result_key, now)
  local kept = {}
  outcome = outcome or string.format('{"id":"%s","state":"%s","at":%d}', id, how, now)
  for field in string.gmatch(tied, '[^\n]+') do
    local letter, value = string.sub(field, 1, 1), string.sub(field, 2)
    local keep = how == 'dead'
    if letter == 'f' or letter == 'c' then
      unlock(value, id)
    elseif letter == 't' then
      if how ~= 'done' then unlock(value, id) end
    elseif letter == 'g' then
      local group = group_of(value)
      keep = keep and group and group.when == 's'
      if not keep then count_member(value, how == 'done', outcome) end
    elseif letter == 'r' and result_key and how ~= 'purged' then
      put_result(result_key, value, outcome)
    end
    if keep then kept[#kept + 1] = field end
  end
  if how ~= 'dead' then redis.call('HDEL', MERGES, id) end
  if #kept > 0 then
    redis.call('HSET', TIES, id, table.concat(kept, '\n'))
  else
    redis.call('HDEL', TIES, id)
  end
end
