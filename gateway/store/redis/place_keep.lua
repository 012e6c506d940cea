-- Holds places for a further lease.
-- ARGV: a name whose place becomes the first one's, or '', the lease in milliseconds, then each place:
-- its name, the number of its groups, the groups.
local before, lease, now = ARGV[1], tonumber(ARGV[2]), clock()
local at = 3
while at <= #ARGV do
  local name, groups = ARGV[at], tonumber(ARGV[at + 1])
  for i = at + 2, at + 1 + groups do
    if before ~= '' then
      redis.call('ZREM', key(ARGV[i]), before)
    end
    hold(ARGV[i], name, now, lease)
  end
  before, at = '', at + 2 + groups
end
