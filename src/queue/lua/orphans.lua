#!lua flags=allow-oom
-- One bounded step through a set or hash of ids, for those that belong to nothing any more.
-- KEYS: hash or zset of ids, hash or zset in which each of them must be
-- ARGV: cursor, ids looked at in about, '1' to remove the orphans, else they are only told
-- Out:  {next cursor, orphan...}
local of, home = unpack(KEYS)
local kind, home_kind = redis.call('TYPE', of)['ok'], redis.call('TYPE', home)['ok']
if kind == 'none' then return {'0'} end
local step = redis.call(kind == 'hash' and 'HSCAN' or 'ZSCAN', of, ARGV[1], 'COUNT', ARGV[2])
local out, found = {step[1]}, step[2]
for i = 1, #found, 2 do
  local id = found[i]
  local there
  if home_kind == 'zset' then there = redis.call('ZSCORE', home, id) else there = redis.call('HEXISTS', home, id) == 1 end
  if not there then
    out[#out + 1] = id
    if ARGV[3] == '1' then redis.call(kind == 'hash' and 'HDEL' or 'ZREM', of, id) end
  end
end
return out
