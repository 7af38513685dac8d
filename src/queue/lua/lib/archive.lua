-- The histories of jobs that ended: `archive` (id -> record, history, added events, with tabs between) and `archived`
-- (id by the time of its end). Bounded by count and by bytes: the oldest give way. Needs sizes.lua.
local archiving = {}

-- The record of a job of which a script knows no more than its end.
function archiving.record(id, state, now)
  return string.format('%s\t%s\t\t\t0\t%.0f\t0', id, state, now)
end

-- Notes one that is to be kept: its record, its history or nothing, and an event or nothing.
function archiving.note(id, record, history, event)
  history = history and history ~= '' and history or '{}'
  archiving[#archiving + 1] = id
  archiving[#archiving + 1] = record .. '\t' .. history .. (event and event ~= '' and '\t' .. event or '')
end

-- Removes the oldest while there is too much, at most `most`; returns how many.
function archiving.evict(archive, archived, stats, max, max_bytes, most)
  local count, bytes, gone = redis.call('ZCARD', archived), grow(stats, 'history_bytes', 0), 0
  while gone < most and (count > max or bytes > max_bytes) do
    local id = redis.call('ZPOPMIN', archived)[1]
    if not id then break end
    bytes = grow(stats, 'history_bytes', -redis.call('HSTRLEN', archive, id))
    redis.call('HDEL', archive, id)
    count, gone = count - 1, gone + 1
  end
  if count == 0 then redis.pcall('HSET', stats, 'history_bytes', 0) end
  if gone > 0 then redis.pcall('HINCRBY', stats, 'history_dropped', gone) end
  return gone
end

-- Keeps what was noted.
function archiving.keep(archive, archived, stats, now, max, max_bytes)
  if #archiving == 0 or max == 0 then return end
  local bytes, scores = 0, {}
  for i = 1, #archiving, 2 do
    bytes = bytes + #archiving[i + 1] - redis.call('HSTRLEN', archive, archiving[i])
    scores[i], scores[i + 1] = now, archiving[i]
  end
  redis.call('HSET', archive, unpack(archiving))
  redis.call('ZADD', archived, unpack(scores))
  grow(stats, 'history_bytes', bytes)
  archiving.evict(archive, archived, stats, max, max_bytes, #archiving / 2 + 16)
end
