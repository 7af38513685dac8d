#!lua flags=allow-oom
-- Puts jobs that are nowhere back into their flow, each with a tombstone: should an entry of it stand in another flow all
-- the same, the claim drops that one. What has come to its flow just now is found at one of the flow's ends.
-- KEYS: jobs, running, delayed, dead, tomb, meta, ready, flow
-- ARGV: member of the flow, entries looked through at either end, '1' to do it, else it is only said, event,
--       then for each job: id, history if it has none (at most 100 jobs)
-- Out:  {id, its tombstone, ...} of those that were nowhere
local jobs, running, delayed, dead, tomb, meta, ready, flow = unpack(KEYS)
local reach = tonumber(ARGV[2])
-- Redis does not roll back: a key of the wrong type must show before the first write.
for _, key in ipairs({tomb, meta}) do redis.call('HLEN', key) end
redis.call('ZCARD', ready)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out, there = {}, {}
for _, range in ipairs({{0, reach - 1}, {-reach, -1}}) do
  for _, entry in ipairs(redis.call('LRANGE', flow, range[1], range[2])) do
    local id = string.sub(entry, 15)
    there[id] = math.max(there[id] or 0, tonumber(string.sub(entry, 1, 13)) or 0)
  end
end
for i = 5, #ARGV, 2 do
  local id = ARGV[i]
  local count, at = string.match(redis.call('HGET', tomb, id) or '', '^(%d+):(%d+)$')
  count, at = tonumber(count) or 0, tonumber(at) or 0
  if redis.call('HEXISTS', jobs, id) == 1 and redis.call('HEXISTS', running, id) == 0
    and not redis.call('ZSCORE', delayed, id) and not redis.call('ZSCORE', dead, id)
    and not (there[id] and there[id] > at) then
    local until_ms = math.max(now, at + 1)
    local stone = string.format('%d:%d', count + 1, until_ms)
    if ARGV[3] == '1' then
      redis.call('HSET', tomb, id, stone)
      redis.call('HSET', meta, id, (redis.call('HGET', meta, id) or ARGV[i + 1]) .. '\t' .. ARGV[4])
      redis.call('RPUSH', flow, string.format('%013d:%s', until_ms + 1, id))
      redis.call('ZADD', ready, 'NX', until_ms + 1, ARGV[1])
    end
    out[#out + 1], out[#out + 2] = id, stone
  end
end
return out
