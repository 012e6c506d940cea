-- Makes every claim of a sink's messages void, at most ARGV[2] at once. Returns how many it was.
local sink, pairs_of = ARGV[1], {}
local ids = redis.call('ZRANGE', key('flight', sink), 0, tonumber(ARGV[2]) - 1)
for _, id in ipairs(ids) do
  local message = load(id)
  redis.call('HINCRBY', key('message', id), 'fence', 1)
  set(message, 'status', message.tried and 'retrying' or 'pending')
  set(message, 'lease_until', false)
  redis.call('ZREM', key('flight', sink), id)
  redis.call('ZADD', key('waiting', sink), message.created_at, id)
  pairs_of[pair_key(message.destination, message.job_id)] = message
end
for _, message in pairs(pairs_of) do
  arrange(message.destination, message.job_id)
end
return #ids
