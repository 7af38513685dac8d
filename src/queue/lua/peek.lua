#!lua flags=allow-oom
-- Looks at the head of the inbox without taking anything, except an entry too large to look at.
-- KEYS: inbox, taken, quarantine, stats
-- ARGV: max entries, max bytes in all, max bytes of one entry, bytes kept of an oversize one, quarantine max,
--       quarantine bytes
-- Out:  {taken, now_ms, entry...}; error WRONGTYPE if `taken` is no number
local inbox, taken_key, quarantine, stats = unpack(KEYS)
local max_entries, max_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local max_entry, cut = tonumber(ARGV[3]), tonumber(ARGV[4])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local taken = tonumber(redis.call('GET', taken_key) or 0)
-- Beyond 2^53 Lua does not count exactly.
if not taken or taken >= 2 ^ 53 then return redis.error_reply('WRONGTYPE taken is not a number') end
local entries, bytes, step = {}, 0, 1
-- Small steps, so that huge entries are never all copied at once.
while #entries < max_entries and bytes < max_bytes do
  local from = #entries
  local chunk = redis.call('LRANGE', inbox, from, math.min(from + step, max_entries) - 1)
  for _, entry in ipairs(chunk) do
    if #entry > max_entry then
      if #entries == 0 then
        redis.call('HLEN', stats)
        quarantining.add(quarantine, stats, tonumber(ARGV[5]), tonumber(ARGV[6]), now, 'too_large',
          #entry .. ' bytes; at most ' .. max_entry .. ' allowed; cut', string.sub(entry, 1, cut))
        redis.call('LPOP', inbox)
        taken = redis.call('INCR', taken_key)
        redis.pcall('HINCRBY', stats, 'quarantined', 1)
      end
      -- What stands before it is taken first; it is dealt with when it is the head.
      return {taken, now, unpack(entries)}
    end
    entries[#entries + 1] = entry
    bytes = bytes + #entry
    if bytes >= max_bytes then break end
  end
  if #chunk < step then break end
  step = math.min(step * 2, 32)
end
return {taken, now, unpack(entries)}
