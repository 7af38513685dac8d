-- Agrees on where a peak begins: whoever comes first says it, and who finds about the same later gets that.
-- KEYS: peak
-- ARGV: its first slot, slots within which it is the same one, ms it is remembered
-- Out:  the slot agreed on
local known = tonumber(redis.call('GET', KEYS[1]) or '')
if known and math.abs(known - ARGV[1]) <= tonumber(ARGV[2]) then return known end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return tonumber(ARGV[1])
