-- ARGV: the last one's created_at and id ('' to begin), limit.
-- Returns {created_at, id, document} of the next ones, oldest first.
local index, first = key('unfinished'), 0
if ARGV[2] ~= '' then
  local rank = redis.call('ZRANK', index, ARGV[2])
  first = rank and rank + 1 or redis.call('ZCOUNT', index, '-inf', '(' .. ARGV[1])
end
local found = redis.call('ZRANGE', index, first, first + tonumber(ARGV[3]) - 1, 'WITHSCORES')
local result = {}
for i = 1, #found, 2 do
  result[#result + 1] = {found[i + 1], found[i], redis.call('HGET', key('job', found[i]), 'document')}
end
return result
