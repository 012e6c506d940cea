-- Gives a claim back, to be due at ARGV[3]; an ended job is not due again.
-- ARGV: id, fence, due_at. Returns 1, or 0 when the claim was lost.
local id, due_at, job = ARGV[1], ARGV[3], key('job', ARGV[1])
local held = redis.call('HMGET', job, 'fence', 'lease_until', 'due_at', 'upstream')
if held[1] ~= ARGV[2] or not held[2] then
  return 0
end
redis.call('HDEL', job, 'lease_until')
redis.call('ZREM', key('leases'), id)
if held[3] then
  redis.call('HSET', job, 'due_at', due_at)
  redis.call('ZADD', key('due'), due_at, id)
  redis.call('ZADD', key('due', 'of', held[4]), due_at, id)
end
return 1
