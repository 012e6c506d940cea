-- ARGV: stripe, id, fence, status, due_at ('' keeps it), now, whether it ended, the attempt's line.
-- Returns 1, or 0 when the lease was lost.
local stripe, message = tonumber(ARGV[1]), load(ARGV[2])
if not message or message.fence ~= ARGV[3] or message.status ~= 'in_flight' then
  return 0
end
local status, due_at, now, ended = ARGV[4], ARGV[5], ARGV[6], ARGV[7] ~= ''
redis.call('RPUSH', key('attempts', message.id), ARGV[8])
set(message, 'tried', '1')
set(message, 'lease_until', false)
if due_at ~= '' then
  set(message, 'due_at', due_at)
end
if ended then
  finish(message, status, now, stripe)
elseif message.outdated then
  finish(message, 'superseded', now, stripe)
else
  set(message, 'status', status)
  redis.call('ZREM', key('flight', message.sink), message.id)
  redis.call('ZADD', key('waiting', message.sink), message.created_at, message.id)
end
arrange(message.destination, message.job_id)
return 1
