-- ARGV: before, limit. Deletes lines from before, but none of the last day. Returns how many.
local before = math.min(tonumber(ARGV[1]), redis.call('TIME')[1] - 86400)
local numbers = redis.call('ZRANGEBYSCORE', key('audit'), '-inf',
  '(' .. string.format('%.17g', before), 'LIMIT', 0, ARGV[2])
for _, number in ipairs(numbers) do
  local line = cjson.decode(redis.call('HGET', key('audit', 'lines'), number))
  redis.call('ZREM', key('audit', 'of', line.webhook_id), number)
  redis.call('ZREM', key('audit'), number)
  redis.call('HDEL', key('audit', 'lines'), number)
end
return #numbers
