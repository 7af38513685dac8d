-- What a job is tied to besides its flow, and how an end lets go of it. Needs groups.lua. For scripts whose first nine keys
-- are these:
-- ties: id → fields joined by '\n'. 'f', 'c', 't': a lock, held until the job is finished, is claimed, or time is over;
--   'k': the class and key of its flow, where its envelope alone does not say them;
--   'g': its group; 'G': the same, where it was counted already; 'n': a hash of what follows it, where that matters for
--   merging; 'r': ms for which its result is kept; 'w': the workflow it belongs to;
--   'i': an app gave its id, which the envelope may not tell any more once it is that of a later job under its lock
-- locks: lock → '<id>|<f, c or t>|<ms when it is gone, or 0>|<ms of the first job under it>'
-- lock_ends: locks that outlive their jobs, by the ms when they are gone
-- merges: id → envelopes that are to be united with its own, joined by '\0', which no JSON holds
-- groups, group_then, group_results, group_times: see groups.lua; inbox
local TIES, LOCKS, LOCK_ENDS, MERGES = unpack(KEYS, 1, 4)

-- Redis does not roll back: a key of the wrong type must show before the first write.
local function check_ties()
  for _, key in ipairs({TIES, LOCKS, MERGES, GROUPS, GROUP_THEN, GROUP_RESULTS}) do redis.call('HLEN', key) end
  for _, key in ipairs({LOCK_ENDS, GROUP_TIMES}) do redis.call('ZCARD', key) end
  redis.call('LLEN', INBOX)
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

-- The envelopes that were to be united with that of a job.
local function merged_into(id) return string.gmatch(redis.call('HGET', MERGES, id) or '', '[^%z]+') end

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
      member_of[id] = value
      if not (keep and group and group.when == 's') then
        count_member(value, how == 'done', outcome)
        field = 'G' .. value
      end
    elseif letter == 'G' then
      member_of[id] = value
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
