-- ARGV: before, limit. Forgets the bodies of what finished before. Returns how many it was.
local ids = redis.call('ZRANGEBYSCORE', key('bodies'), '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ids) do
  redis.call('HDEL', key('message', id), 'body')
  redis.call('ZREM', key('bodies'), id)
end
return #ids
