-- ARGV: id, whether it succeeded, now, whether the delivery was given up.
-- Returns the row after that; nothing when it is gone.
local id, now = ARGV[1], ARGV[3]
local old = row(id)
if not old then
  return false
end
if ARGV[2] ~= '' then
  put(id, 'consecutive_failures', '0')
  put(id, 'exhausted_count', '0')
  put(id, 'failing_since', '')
  if not old[7] or tonumber(old[7]) < tonumber(now) then
    put(id, 'last_success_at', now)
  end
else
  redis.call('HINCRBY', key('webhook', id), 'consecutive_failures', 1)
  if not old[8] then
    put(id, 'failing_since', now)
  end
  if ARGV[4] ~= '' then
    redis.call('HINCRBY', key('webhook', id), 'exhausted_count', 1)
  end
end
return row(id)
