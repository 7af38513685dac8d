#!lua flags=no-writes
-- Where jobs are, told by their ids. Writes nothing.
-- KEYS: jobs, running, delayed, dead
-- ARGV: id... (at most 500)
-- Out:  a letter for each: 'p' it should wait in a flow, 'r' runs, 'd' delayed, 'x' dead, '-' there is no such job
local jobs, running, delayed, dead = unpack(KEYS)
local out = {}
for i, id in ipairs(ARGV) do
  out[i] = redis.call('HEXISTS', jobs, id) == 0 and '-' or redis.call('HEXISTS', running, id) == 1 and 'r'
    or redis.call('ZSCORE', delayed, id) and 'd' or redis.call('ZSCORE', dead, id) and 'x' or 'p'
end
return table.concat(out)
