-- ARGV: stripe, sink, now, lease_until, then of each destination its name and how many to claim.
-- Returns of each claimed message {id, fence, its fields..., body}.
local stripe, sink, now, lease_until = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local ANSWER = {
  'sink', 'destination', 'kind', 'event_id', 'job_id', 'sequence', 'created_at', 'due_at',
  'replaceable', 'supersedes', 'strict_order', 'attempt', 'status', 'request_id', 'traceparent',
  'tracestate', 'body',
}

-- What may be claimed of a destination. One superseded in flight whose lease ran out is not sent
-- again: nobody will say what became of it. With it gone, others may be due.
local function due_of(destination, count)
  local queue = key('queue', sink, destination)
  for _ = 1, 8 do
    local due, dropped = {}, false
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'LIMIT', 0, count)) do
      local message = load(id)
      if message.outdated then
        finish(message, 'superseded', now, stripe)
        arrange(message.destination, message.job_id)
        dropped = true
      else
        due[#due + 1] = message
      end
    end
    if not dropped then
      return due
    end
  end
  return {}
end

local claims = {}
for i = 5, #ARGV, 2 do
  for _, message in ipairs(due_of(ARGV[i], ARGV[i + 1])) do
    local name = key('message', message.id)
    redis.call('HINCRBY', name, 'attempt', 1)
    local fence = redis.call('HINCRBY', name, 'fence', 1)
    set(message, 'status', 'in_flight')
    set(message, 'lease_until', lease_until)
    redis.call('ZREM', key('waiting', sink), message.id)
    redis.call('ZADD', key('flight', sink), lease_until, message.id)
    place(message)
    claims[#claims + 1] = {message.id, fence, unpack(redis.call('HMGET', name, unpack(ANSWER)))}
  end
end
return claims
