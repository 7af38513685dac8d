-- Keeps how far running jobs have come, each only under the token of the delivery that tells it.
-- KEYS: running, progress
-- ARGV: for each job: id, token, report (at most 500 jobs)
-- Out:  numbers of those that do not run under that token (any more), of which nothing is kept
local running, progress = unpack(KEYS)
local ids = {}
for i = 1, #ARGV, 3 do ids[#ids + 1] = ARGV[i] end
local held = redis.call('HMGET', running, unpack(ids))
-- Redis does not roll back: a key of the wrong type must show before the first write.
redis.call('HLEN', progress)
local kept, stale = {}, {}
for n, id in ipairs(ids) do
  if held[n] == ARGV[n * 3 - 1] then
    kept[#kept + 1], kept[#kept + 2] = id, ARGV[n * 3]
  else
    stale[#stale + 1] = n
  end
end
if #kept > 0 then redis.call('HSET', progress, unpack(kept)) end
return stale
