#!lua flags=allow-oom
-- Makes an entry of a flow a hole, if its job is not to wait there: there is no such job, it is elsewhere, or it has
-- another entry. A claim drops holes, as there is no job without an id; a tombstone counts them until then.
-- KEYS: jobs, running, delayed, dead, tomb, flow, flow of the other entry
-- ARGV: entry, its distance from the tail when it was read, the other entry or '', its distance, entries looked through at
--       most, '1' to do it, else it is only said
-- Out:  1 if it was so, else 0
local jobs, running, delayed, dead, tomb, flow, other_flow = unpack(KEYS)
local entry, other, reach = ARGV[1], ARGV[3], tonumber(ARGV[5])
local id = string.sub(entry, 15)

-- The place of an entry, from 0: an entry moves away from the tail, if at all.
local function place(list, wanted, distance, not_at)
  local length = redis.call('LLEN', list)
  local last = length - 1 - distance
  local first = math.max(0, last - reach + 1)
  if last < 0 then return nil end
  local chunk = redis.call('LRANGE', list, first, last)
  for i = #chunk, 1, -1 do
    if chunk[i] == wanted and first + i - 1 ~= not_at then return first + i - 1 end
  end
end

local stone = string.match(redis.call('HGET', tomb, id) or '', '^%d+:(%d+)$')
local function buried(of) return stone and (tonumber(string.sub(of, 1, 13)) or 0) <= tonumber(stone) end

local at = not buried(entry) and place(flow, entry, tonumber(ARGV[2]))
if not at then return 0 end
if other ~= '' then
  local same = flow == other_flow and at or nil
  if buried(other) or not place(other_flow, other, tonumber(ARGV[4]), same) then return 0 end
elseif redis.call('HEXISTS', jobs, id) == 1 and redis.call('HEXISTS', running, id) == 0
  and not redis.call('ZSCORE', delayed, id) and not redis.call('ZSCORE', dead, id) then
  return 0
end
if ARGV[6] == '1' then
  redis.call('LSET', flow, at, string.sub(entry, 1, 14))
  local holes = tonumber(string.match(redis.call('HGET', tomb, '') or '', '^(%d+):')) or 0
  redis.call('HSET', tomb, '', string.format('%d:9999999999999', holes + 1))
end
return 1
