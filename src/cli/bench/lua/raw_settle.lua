-- What a settlement comes down to: only what is under the token ends.
-- KEYS: jobs, running
-- ARGV: token, id...
-- Out:  how many ended
local ids = {unpack(ARGV, 2)}
local held = redis.call('HMGET', KEYS[2], unpack(ids))
local ended = {}
for i, id in ipairs(ids) do
  if held[i] == ARGV[1] then ended[#ended + 1] = id end
end
if #ended > 0 then
  redis.call('HDEL', KEYS[2], unpack(ended))
  redis.call('HDEL', KEYS[1], unpack(ended))
end
return #ended
