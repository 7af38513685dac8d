-- Entries that can't be jobs, bounded by count and by bytes: the oldest give way. Needs sizes.lua.
local quarantining = {}

function quarantining.size(fields)
  local size = 0
  for i = 2, #fields, 2 do size = size + #fields[i] end
  return size
end

-- Removes the oldest while there is too much, at most `most`.
function quarantining.evict(quarantine, stats, max, max_bytes, most)
  local count, bytes, gone = redis.call('XLEN', quarantine), grow(stats, 'quarantine_bytes', 0), 0
  while gone < most and (count > max or bytes > max_bytes) do
    local oldest = redis.call('XRANGE', quarantine, '-', '+', 'COUNT', 1)[1]
    if not oldest then break end
    redis.call('XDEL', quarantine, oldest[1])
    bytes = grow(stats, 'quarantine_bytes', -quarantining.size(oldest[2]))
    count, gone = count - 1, gone + 1
  end
  if gone > 0 then redis.pcall('HINCRBY', stats, 'quarantine_dropped', gone) end
end

-- Takes one in; with the group in which it was counted as failed, and its id, if it was.
function quarantining.add(quarantine, stats, max, max_bytes, now, code, reason, raw, group, id)
  local fields = {'at', string.format('%.0f', now), 'code', code, 'reason', reason, 'raw', raw}
  if group then
    for _, part in ipairs({'group', group, 'member', id or ''}) do fields[#fields + 1] = part end
  end
  redis.call('XADD', quarantine, '*', unpack(fields))
  grow(stats, 'quarantine_bytes', quarantining.size(fields))
  quarantining.evict(quarantine, stats, max, max_bytes, 16)
end

-- Takes one out for good; returns its fields, none if it is not there.
function quarantining.take(quarantine, stats, entry)
  local found = redis.call('XRANGE', quarantine, entry, entry)[1]
  if not found then return nil end
  redis.call('XDEL', quarantine, entry)
  grow(stats, 'quarantine_bytes', -quarantining.size(found[2]))
  if redis.call('XLEN', quarantine) == 0 then redis.pcall('HSET', stats, 'quarantine_bytes', 0) end
  return found[2]
end
