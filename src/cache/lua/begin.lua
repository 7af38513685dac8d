-- begin: where the log stands, to be asked before the source is read.
-- KEYS, ARGV   those of open.lua
-- Returns      { seq, epoch }
local seq, epoch = open()
return { seq, epoch }
