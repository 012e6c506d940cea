-- Keeps a claim until ARGV[3] when ARGV[4] is 'keep', else gives it back, to be due then.
-- ARGV: id, fence, at, what. Returns 1, or 0 when the claim was lost.
local id, at, job = ARGV[1], ARGV[3], key('job', ARGV[1])
local held = redis.call('HMGET', job, 'fence', 'lease_until', 'due_at', 'upstream')
if held[1] ~= ARGV[2] or not held[2] then
  return 0
end
if ARGV[4] == 'keep' then
  redis.call('HSET', job, 'lease_until', at)
  redis.call('ZADD', key('leases'), at, id)
else
  redis.call('HDEL', job, 'lease_until')
  redis.call('ZREM', key('leases'), id)
end
if held[3] then
  if ARGV[4] ~= 'keep' then
    redis.call('HSET', job, 'due_at', at)
  end
  redis.call('ZADD', key('due'), at, id)
  redis.call('ZADD', key('due', 'of', held[4]), at, id)
end
return 1
