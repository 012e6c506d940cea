-- ARGV: before, the last one's created_at and id ('' to begin), limit.
-- Returns {created_at, id, row} of callbacks made before, oldest first.
local index, first = key('callbacks'), 0
if ARGV[3] ~= '' then
  local rank = redis.call('ZRANK', index, ARGV[3])
  first = rank and rank + 1 or redis.call('ZCOUNT', index, '-inf', ARGV[2])
end
local found = redis.call('ZRANGE', index, first, first + tonumber(ARGV[4]) - 1, 'WITHSCORES')
local result = {}
for i = 1, #found, 2 do
  if tonumber(found[i + 1]) >= tonumber(ARGV[1]) then
    break
  end
  result[#result + 1] = {found[i + 1], found[i], row(found[i])}
end
return result
