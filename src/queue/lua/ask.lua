-- Asks for the result of a job that has not asked for it itself, while that can still be done.
-- KEYS: jobs, running, dead, ties
-- ARGV: id, ms for which it is to be kept
-- Out:  'asked' (it will be told at its end), 'running' (too late), 'dead', or '' if there is no such job in the queue
local jobs, running, dead, ties = unpack(KEYS)
local id = ARGV[1]
if redis.call('HEXISTS', jobs, id) == 0 then return '' end
if redis.call('ZSCORE', dead, id) then return 'dead' end
local tied = redis.call('HGET', ties, id)
if tied and string.find('\n' .. tied, '\nr%d') then return 'asked' end
-- What is declared for the end of a delivery was fixed when it began.
if redis.call('HEXISTS', running, id) == 1 then return 'running' end
redis.call('HSET', ties, id, (tied and tied .. '\n' or '') .. 'r' .. ARGV[2])
return 'asked'
