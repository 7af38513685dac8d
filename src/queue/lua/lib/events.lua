-- Adds an event to a history, as job/history reads it; one that follows its like takes its place and counts it. What
-- was added to a history is taken in when the job ends: until then it does not grow beyond this.
local HISTORY_MAX = 65536
local function with_event(history, event, now)
  local last = '^(.*\t){"at":%d+,"event":"' .. event .. '"'
  local before, times = string.match(history, last .. ',"times":(%d+)}$')
  if not before then
    before, times = string.match(history, last .. '}$'), 1
  end
  if not before and #history > HISTORY_MAX then return history end
  if not before then return string.format('%s\t{"at":%.0f,"event":"%s"}', history, now, event) end
  return string.format('%s{"at":%.0f,"event":"%s","times":%d}', before, now, event, times + 1)
end
