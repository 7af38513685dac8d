-- Locks as admission takes them: who holds one already, and what that one takes over. Needs tomb.lua, events.lua, ties.lua.
-- The script sets: jobs, running, dead, delayed, meta, tomb (keys), now, place(id, list, due), and flush(), which writes
-- what was placed so far; `stones` tells place whether cancelled jobs may have left entries behind.
local locking = {}
local MERGE_MAX = 262144

-- The lock among the ties of a job.
local function lock_of(tied) return string.match('\n' .. (tied or ''), '\n[fct]([^\n]+)') end

-- What tells apart what follows a job.
local function follows_of(tied) return string.match('\n' .. (tied or ''), '\n(n[^\n]+)') end

-- Notes in the history of a waiting job what a later one did to it.
local function note(id, event, kind)
  local history = redis.call('HGET', locking.meta, id) or '{"kind":"' .. kind .. '"}'
  redis.call('HSET', locking.meta, id, with_event(history, event, locking.now))
end

-- The waiting holder of a lock takes over what an entry says.
local function replace(entry, holder, kind, first, wait, most)
  local now, due = locking.now, entry.due
  if wait > 0 then
    due = now + wait
    if most > 0 then due = math.min(due, first + most) end
  end
  redis.call('HSET', locking.jobs, holder, entry.raw)
  redis.call('HDEL', MERGES, holder)
  note(holder, 'replaced', kind)
  -- Results that somebody waits for are still told of the holder, and its id is still its own.
  local before, tied = redis.call('HGET', TIES, holder) or '', entry.tied
  local asked = string.match('\n' .. before, '\n(r%d+)')
  if asked and not string.find(tied, '\nr%d') then tied = tied .. '\n' .. asked end
  if id_was_given(before) then tied = tied .. '\ni' end
  redis.call('HSET', TIES, holder, tied)
  -- One that was put off for as long as it may be keeps its place.
  if wait > 0 and due <= now then return end
  if redis.call('ZREM', locking.delayed, holder) == 0 then
    lay_stone(locking.tomb, holder, now)
    locking.stones = true
  end
  locking.place(holder, entry.list, due)
end

-- The waiting holder takes an entry in; false if it can't: it would grow too large, or something else follows it.
local function merge(entry, holder, kind, tied)
  local follows = follows_of(entry.tied)
  if follows and follows ~= follows_of(tied) then return false end
  local before = redis.call('HGET', MERGES, holder)
  if #(before or '') + #entry.raw >= MERGE_MAX then return false end
  redis.call('HSET', MERGES, holder, before and before .. '\0' .. entry.raw or entry.raw)
  note(holder, 'merged', kind)
  return true
end

-- Writes down who holds a lock, and until when.
local function hold(name, id, letter, gone, first, held)
  redis.call('HSET', LOCKS, name, string.format('%s|%s|%d|%d', id, letter, gone, first))
  if letter == 't' then
    redis.call('ZADD', LOCK_ENDS, gone, name)
  elseif held == 't' then
    redis.call('ZREM', LOCK_ENDS, name)
  end
end

-- Locks whose time is over go, faster than new ones come.
local function forget_locks()
  for _, old in ipairs(redis.call('ZRANGE', LOCK_ENDS, '-inf', locking.now, 'BYSCORE', 'LIMIT', 0, 16)) do
    -- The enqueue script may have reserved it for another job since.
    local ends = string.match(redis.call('HGET', LOCKS, old) or '', '|t|(%d+)|%d+$')
    if ends and tonumber(ends) <= locking.now then redis.call('HDEL', LOCKS, old) end
    redis.call('ZREM', LOCK_ENDS, old)
  end
end

-- Takes the lock of an entry; else says how the entry gave way, and to whom. `rule` is that of admit.lua.
function locking.take(entry, rule)
  local letter, name = string.match('\n' .. entry.tied, '\n([fct])([^\n]+)')
  local action, ttl, wait, most = string.match(rule, '^(%a)|(%d+)|(%d+)|(%d+)')
  wait, most = tonumber(wait), tonumber(most)
  local now, kind = locking.now, string.match(name, '^[^:]+')
  local gone = tonumber(ttl) > 0 and now + ttl or 0
  local holder, held, ends, first = string.match(redis.call('HGET', LOCKS, name) or '', '^([^|]*)|(%a)|(%d+)|(%d+)$')
  if holder and holder ~= entry.id and (ends == '0' or tonumber(ends) > now) then
    -- What came earlier in this batch must be where it is looked for.
    locking.flush()
    local tied = redis.call('HGET', TIES, holder)
    -- Dead ones stand for nobody, and a reservation may bear the id of another job.
    local lives = redis.call('HEXISTS', locking.jobs, holder) == 1 and not redis.call('ZSCORE', locking.dead, holder)
      and lock_of(tied) == name
    local waits = lives and redis.call('HEXISTS', locking.running, holder) == 0
    if action == 'r' and waits then
      replace(entry, holder, kind, tonumber(first), wait, most)
      -- From now on it is held as the new one asks.
      if held ~= letter then hold(name, holder, letter, gone, first, held) end
      return 'replaced', holder
    elseif action == 'm' and waits then
      if merge(entry, holder, kind, tied) then return 'merged', holder end
    elseif lives or held == 't' then
      return 'skipped', holder
    end
  end
  hold(name, entry.id, letter, gone, now, held)
  if letter == 't' then forget_locks() end
end

-- The enqueue script reserves the lock of an entry. One that is no job of its own must not leave it behind, unless the
-- job of that id holds it, or holds it no more but until its time is over.
function locking.give_up(id, tied)
  local name = lock_of(tied)
  local held = name and redis.call('HGET', LOCKS, name)
  if not held or string.sub(held, 1, #id + 3) ~= id .. '|f|' then return end
  if lock_of(redis.call('HGET', TIES, id)) ~= name then redis.call('HDEL', LOCKS, name) end
end
