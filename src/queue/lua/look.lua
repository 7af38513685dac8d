#!lua flags=no-writes
-- Everything a daemon must know about a queue to plan its next step. Writes nothing.
-- KEYS: jobs, delayed, inbox, cancels, running, stats, resume, control, ready x5
-- ARGV: max flows per priority, max due jobs, max bytes of their envelopes, max wishes for the end of a job
-- Out:  {now_ms, next due ms or -1, inbox length, running, wishes, {id somebody wishes to end...; none if there are too
--       many}, {due id, its score, envelope...}, 1 if flows are due whose rate made them wait,
--       {field of control, its value, ...}, {flow, its place, ...} x5}
local jobs, delayed, inbox, cancels, running, _, resume, control = unpack(KEYS, 1, 8)
local FIRST_READY = 9
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local next_due = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
local due, bytes = {}, 0

local function add(found)
  for i = 1, #found, 2 do
    if bytes >= tonumber(ARGV[3]) then return end
    local raw = redis.call('HGET', jobs, found[i]) or ''
    bytes = bytes + #raw
    due[#due + 1], due[#due + 2], due[#due + 3] = found[i], found[i + 1], raw
  end
end

if next_due[2] and tonumber(next_due[2]) <= now then
  add(redis.call('ZRANGE', delayed, '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES'))
end
-- A time that nobody of us wrote, and that never comes, is dealt with now.
local last = redis.call('ZRANGE', delayed, -1, -1, 'WITHSCORES')
if last[2] and tonumber(last[2]) >= 1e13 then add(last) end
local wishes = redis.call('HLEN', cancels)
local wished = wishes > 0 and wishes <= tonumber(ARGV[4]) and redis.call('HKEYS', cancels) or {}
local first = tonumber(next_due[2] or 1e13)
local resumes = redis.call('ZRANGE', resume, 0, 0, 'WITHSCORES')[2]
first = math.min(first, tonumber(resumes or 1e13))
local changed = redis.call('HLEN', control)
local out = {now, first < 1e13 and math.floor(math.max(first, -1)) or -1, redis.call('LLEN', inbox),
  redis.call('HLEN', running), wishes, wished, due, resumes and tonumber(resumes) <= now and 1 or 0,
  changed > 0 and changed <= 5000 and redis.call('HGETALL', control) or {}}
for p = 0, 4 do
  out[#out + 1] = redis.call('ZRANGE', KEYS[FIRST_READY + p], 0, ARGV[1] - 1, 'WITHSCORES')
end
return out
