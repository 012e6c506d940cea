-- KEYS: the group. ARGV: key, variant, how many variants a key may have, how many keys the group,
-- for how many milliseconds it is kept at the least.
local group, key, variant = KEYS[1], ARGV[1], ARGV[2]
local mine = head(variant, 1)
local old = redis.call('HGET', group, key)
if not old and redis.call('HLEN', group) > tonumber(ARGV[4]) then
  redis.call('UNLINK', group)
end
local kept, found, at = {variant}, 1, 1
while old and at <= #old and found < tonumber(ARGV[3]) do
  local vary, _, length = head(old, at)
  if vary ~= mine then
    kept[#kept + 1] = old:sub(at, at + length - 1)
    found = found + 1
  end
  at = at + length
end
redis.call('HSET', group, key, table.concat(kept))
redis.call('HINCRBY', group, '', found - count(old))
if redis.call('PTTL', group) < tonumber(ARGV[5]) then
  redis.call('PEXPIRE', group, ARGV[5])
end
