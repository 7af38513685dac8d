-- How the job of a remembered id ended stands in the fraction of its score in `ids`, in eighths.
local ENDS = {'done', 'cancelled', 'expired', 'dead', 'skipped', 'replaced', 'merged'}
local EIGHTHS = {}
for i, how in ipairs(ENDS) do EIGHTHS[how] = (i - 1) / 8 end
