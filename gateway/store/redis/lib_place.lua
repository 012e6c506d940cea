-- Places for jobs: a sorted set a group, of names by when their lease ends, in milliseconds.

-- Hold a place in a group until a lease from now on ends, and the group as long as any place in it.
local function hold(group, name, now, lease)
  redis.call('ZADD', key(group), string.format('%.0f', now + lease), name)
  local last = redis.call('ZRANGE', key(group), -1, -1, 'WITHSCORES')[2]
  redis.call('PEXPIREAT', key(group), last)
end
