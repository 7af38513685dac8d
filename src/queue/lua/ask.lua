-- Asks for the result of a job that has not asked for it itself, whether it waits or runs. Its settlement finds the wish.
-- KEYS: jobs, dead, ties
-- ARGV: id, ms for which it is to be kept
-- Out:  'asked' (it will be told at its end), 'dead', or '' if there is no such job in the queue
local jobs, dead, ties = unpack(KEYS)
local id = ARGV[1]
if redis.call('HEXISTS', jobs, id) == 0 then return '' end
if redis.call('ZSCORE', dead, id) then return 'dead' end
local tied = redis.call('HGET', ties, id)
if tied and string.find('\n' .. tied, '\nr%d') then return 'asked' end
redis.call('HSET', ties, id, (tied and tied .. '\n' or '') .. 'r' .. ARGV[2])
return 'asked'
