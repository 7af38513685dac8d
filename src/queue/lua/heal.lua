#!lua flags=allow-oom
-- Sets a key of the wrong type aside, with a note in quarantine. Who comes second finds nothing to do.
-- KEYS: key, its new name, quarantine, stats
-- ARGV: the type it must have ('number': a string that holds an integer), quarantine max, quarantine bytes,
--       the size in `stats` that is of no use now, or ''
-- Out:  the type it had, or '' if that was right
local key, aside, quarantine, stats = unpack(KEYS)
local wanted = ARGV[1]
local found = redis.call('TYPE', key)['ok']
if found == 'none' or found == wanted then return '' end
if wanted == 'number' and found == 'string' then
  local text = redis.call('GET', key)
  -- Beyond 2^53 Lua does not count exactly.
  if string.match(text, '^%d+$') and tonumber(text) < 2 ^ 53 then return '' end
end
redis.call('RENAME', key, aside)
if ARGV[4] ~= '' then redis.pcall('HDEL', stats, ARGV[4]) end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
quarantining.add(quarantine, stats, tonumber(ARGV[2]), tonumber(ARGV[3]), now, 'wrong_type',
  'key ' .. key .. ' was a ' .. found .. ', not a ' .. wanted .. '; moved to ' .. aside, aside)
return found
