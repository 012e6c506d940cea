-- Takes a place in every group, or none.
-- ARGV: its name, the lease in milliseconds, 1 to take it though there is none, then each group and how
-- many places it has. Returns the number of the first group that is full, 0 if none is.
local name, lease, anyway = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local now, full = clock(), 0
for i = 4, #ARGV, 2 do
  redis.call('ZREMRANGEBYSCORE', key(ARGV[i]), '-inf', string.format('%.0f', now))
  if full == 0 and redis.call('ZCARD', key(ARGV[i])) >= tonumber(ARGV[i + 1]) then
    full = (i - 2) / 2
  end
end
if full == 0 or anyway then
  for i = 4, #ARGV, 2 do
    hold(ARGV[i], name, now, lease)
  end
end
return full
