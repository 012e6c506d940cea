-- Makes every claim on a job void, at most ARGV[1] at once. Returns how many it was.
local ids = redis.call('ZRANGE', key('leases'), 0, tonumber(ARGV[1]) - 1)
for _, id in ipairs(ids) do
  local job = key('job', id)
  redis.call('HINCRBY', job, 'fence', 1)
  redis.call('HDEL', job, 'lease_until')
  redis.call('ZREM', key('leases'), id)
  local held = redis.call('HMGET', job, 'due_at', 'upstream')
  if held[1] then
    redis.call('HSET', job, 'due_at', '0')
    redis.call('ZADD', key('due'), '0', id)
    redis.call('ZADD', key('due', 'of', held[2]), '0', id)
  end
end
return #ids
