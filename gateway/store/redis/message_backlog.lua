-- Returns of each sink {sink, waiting, in flight, when the oldest that waits was made or ''}.
local lines = {}
for _, sink in ipairs(redis.call('SMEMBERS', key('sinks'))) do
  local oldest = redis.call('ZRANGE', key('waiting', sink), 0, 0, 'WITHSCORES')
  lines[#lines + 1] = {
    sink, redis.call('ZCARD', key('waiting', sink)), redis.call('ZCARD', key('flight', sink)),
    oldest[2] or '',
  }
end
return lines
