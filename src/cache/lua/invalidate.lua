-- invalidate: notes that everything under the given members is out of date from now on.
-- KEYS     those of open.lua
-- ARGV     1-3 those of open.lua
--          4 the channel that hears of it
--          5.. members, 1 to 900: tags, 'k:<key>', or '*' for the region
-- Returns  { seq, epoch }
-- Bound    one ZADD a member, each O(log n) in the members of the log, however many entries carry them.
local _, epoch = open()
local seq = redis.call('INCR', KEYS[1])
for i = 5, #ARGV do
  redis.call('ZADD', KEYS[2], 'GT', seq, ARGV[i])
end
redis.call('PUBLISH', ARGV[4], seq)
return { seq, epoch }
