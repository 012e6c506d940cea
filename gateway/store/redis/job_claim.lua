-- ARGV: upstream ('' for any), limit, now, lease_until. The longest due come first.
-- Returns of each claimed job {due_at, fence, document}.
local index = ARGV[1] == '' and key('due') or key('due', 'of', ARGV[1])
local claims = {}
local ids = redis.call(
  'ZRANGEBYSCORE', index, '-inf', ARGV[3], 'WITHSCORES', 'LIMIT', 0, ARGV[2])
for i = 1, #ids, 2 do
  local id, job = ids[i], key('job', ids[i])
  local upstream = redis.call('HGET', job, 'upstream')
  local fence = redis.call('HINCRBY', job, 'fence', 1)
  redis.call('HSET', job, 'lease_until', ARGV[4])
  redis.call('ZADD', key('due'), ARGV[4], id)
  redis.call('ZADD', key('due', 'of', upstream), ARGV[4], id)
  redis.call('ZADD', key('leases'), ARGV[4], id)
  claims[#claims + 1] = {ids[i + 1], fence, redis.call('HGET', job, 'document')}
end
return claims
