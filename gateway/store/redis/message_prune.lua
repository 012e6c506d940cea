-- ARGV: before, limit. Deletes deliveries that finished before. Returns how many it was.
local ids = redis.call('ZRANGEBYSCORE', key('finished'), '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ids) do
  local destination = redis.call('HGET', key('message', id), 'destination')
  redis.call('ZREM', key('log', destination), id)
  redis.call('ZREM', key('finished'), id)
  redis.call('ZREM', key('bodies'), id)
  redis.call('DEL', key('message', id), key('attempts', id))
end
return #ids
