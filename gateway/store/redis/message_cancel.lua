-- ARGV: stripe, destination, now, cursor. An attempt under way is left to its worker.
-- Returns {cursor, how many were cancelled}; done when the cursor is "0".
local stripe, destination, now = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local found = redis.call('SSCAN', key('open', destination), ARGV[4], 'COUNT', 200)
local count = 0
for _, id in ipairs(found[2]) do
  local message = load(id)
  if not message.lease_until or tonumber(message.lease_until) <= tonumber(now) then
    finish(message, 'cancelled', now, stripe)
    count = count + 1
  end
end
return {found[1], count}
