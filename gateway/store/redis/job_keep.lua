-- Keeps claims until ARGV[1], but for those that were lost.
-- ARGV: lease_until, then id and fence of each. Returns the ids of those kept.
local lease_until, kept = ARGV[1], {}
for at = 2, #ARGV, 2 do
  local id = ARGV[at]
  local job = key('job', id)
  local held = redis.call('HMGET', job, 'fence', 'lease_until', 'due_at', 'upstream')
  if held[1] == ARGV[at + 1] and held[2] then
    redis.call('HSET', job, 'lease_until', lease_until)
    redis.call('ZADD', key('leases'), lease_until, id)
    if held[3] then
      redis.call('ZADD', key('due'), lease_until, id)
      redis.call('ZADD', key('due', 'of', held[4]), lease_until, id)
    end
    kept[#kept + 1] = id
  end
end
return kept
