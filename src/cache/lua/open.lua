-- open: the head of every script of the log. It is put in front of each of them and does nothing by itself.
-- It makes sure that the region's log is whole, or opens a new epoch, in which every earlier entry misses.
--
-- KEYS   1 seq     string   invalidations so far
--        2 inv     zset     member -> seq of its last invalidation; the sentinel '!' has score inf
--        3 floor   string   stamps below it are not remembered
--        4 epoch   string   random; another one makes every earlier entry miss
--        5 marks   zset     seq -> Redis time in ms when it was reached, for garbage collection
--        All of one region, in one slot.
-- ARGV   1 a fresh random epoch, used only if a new one must be opened
--        2 the epoch the caller saw last, or ''
--        3 the highest seq the caller saw in it, or 0
-- Gives  seq, epoch
-- Bound  six commands; a lost log is unlinked, not deleted.
local function open()
  local seq = redis.call('GET', KEYS[1])
  local floor = redis.call('GET', KEYS[3])
  local epoch = redis.call('GET', KEYS[4])
  local sentinel = redis.call('ZSCORE', KEYS[2], '!')
  if (seq and not tonumber(seq)) or (floor and not tonumber(floor)) then
    error({ err = 'WRONGTYPE the counter or the floor of the log is not a number' })
  end
  local whole = seq and floor and epoch and sentinel
  -- A counter that went back has lost invalidations: a failover dropped the end of the log.
  local went_back = epoch == ARGV[2] and tonumber(seq or 0) < tonumber(ARGV[3])
  if whole and not went_back then
    return seq, epoch
  end
  seq = seq or '0'
  redis.call('UNLINK', KEYS[2], KEYS[5])
  redis.call('ZADD', KEYS[2], 'inf', '!')
  redis.call('SET', KEYS[1], seq)
  redis.call('SET', KEYS[3], seq)
  redis.call('SET', KEYS[4], ARGV[1])
  return seq, ARGV[1]
end
