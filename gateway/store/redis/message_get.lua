-- ARGV: id. Returns {fields..., finished_at, body, attempts}; nothing when there is none.
local values = redis.call('HMGET', key('message', ARGV[1]),
  'sink', 'destination', 'kind', 'event_id', 'job_id', 'sequence', 'created_at', 'due_at',
  'replaceable', 'supersedes', 'strict_order', 'attempt', 'status', 'request_id', 'traceparent',
  'tracestate',
  'finished_at', 'body')
if not values[1] then
  return false
end
return {values, redis.call('LRANGE', key('attempts', ARGV[1]), 0, -1)}
