-- Stores a variant of a key, and keeps the partition within its bound.
-- ARGV: the group, key, variant, how many variants a key may have, how many keys the group, for how many
-- milliseconds it is kept at the least, how many bytes the partition may take. Returns how many groups
-- went to make room.
local group, field, variant, keep = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[6])
local now, mine = clock(), head(variant, 1)
sweep(now)
local old = redis.call('HGET', key(group), field)
if not old and redis.call('HLEN', key(group)) > tonumber(ARGV[5]) then
  forget(group)
end
local kept, found, at = {variant}, 1, 1
while old and at <= #old and found < tonumber(ARGV[4]) do
  local vary, _, length = head(old, at)
  if vary ~= mine then
    kept[#kept + 1] = old:sub(at, at + length - 1)
    found = found + 1
  end
  at = at + length
end
local value = table.concat(kept)
redis.call('HSET', key(group), field, value)
redis.call('HINCRBY', key(group), '', found - count(old))
keep = math.max(keep, redis.call('PTTL', key(group)))
redis.call('PEXPIRE', key(group), keep)

local grown = #value - (old and #old or -KEY_BYTES)
if size_of(group) == 0 then
  grown = grown + GROUP_BYTES
end
redis.call('HINCRBY', key('sizes'), group, grown)
redis.call('INCRBY', key('bytes'), grown)
redis.call('ZADD', key('stored'), now, group)
redis.call('ZADD', key('ends'), now + keep, group)
return evict(tonumber(ARGV[7]))
