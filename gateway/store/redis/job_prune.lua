-- ARGV: before, limit. Deletes jobs that ended before, and their timelines. Returns how many it was.
local ids = redis.call('ZRANGEBYSCORE', key('ended'), '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ids) do
  local job = redis.call('HMGET', key('job', id), 'owner', 'subject')
  redis.call('ZREM', key('history'), id)
  redis.call('ZREM', key('history', 'owner', job[1]), id)
  redis.call('ZREM', key('history', 'subject', job[2]), id)
  redis.call('ZREM', key('ended'), id)
  redis.call('ZREM', key('leases'), id)
  redis.call('DEL', key('job', id), key('events', id))
end
return #ids
