-- What a claim comes down to, without any guarantee beyond the token: the base that the daemon is measured against.
-- KEYS: list of ids, jobs, running
-- ARGV: how many, token
-- Out:  {id, envelope, ...}
local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if not ids then return {} end
local raws = redis.call('HMGET', KEYS[2], unpack(ids))
local held, out = {}, {}
for i, id in ipairs(ids) do
  held[#held + 1] = id
  held[#held + 1] = ARGV[2]
  out[#out + 1] = id
  out[#out + 1] = raws[i]
end
redis.call('HSET', KEYS[3], unpack(held))
return out
