-- A partition of cached responses: the groups, and what is known of them: `stored` (a sorted set, when
-- each was last stored), `ends` (when each has its end), both in milliseconds, `sizes` (bytes of each)
-- and `bytes` (of all). What Redis itself adds is in GROUP_BYTES and KEY_BYTES.
local GROUP_BYTES, KEY_BYTES, SWEEP = 700, 90, 100

local function size_of(group)
  return tonumber(redis.call('HGET', key('sizes'), group) or 0)
end

-- Drop a group and what is known of it.
local function forget(group)
  redis.call('UNLINK', key(group))
  redis.call('DECRBY', key('bytes'), size_of(group))
  redis.call('HDEL', key('sizes'), group)
  redis.call('ZREM', key('stored'), group)
  redis.call('ZREM', key('ends'), group)
end

-- Forget the groups that Redis has ended, some at a time.
local function sweep(now)
  for _, group in ipairs(redis.call('ZRANGEBYSCORE', key('ends'), '-inf', now, 'LIMIT', 0, SWEEP)) do
    forget(group)
  end
end

-- Forget the groups that were stored the longest ago, until the rest is within the bound; how many.
local function evict(max_bytes)
  local count = 0
  while tonumber(redis.call('GET', key('bytes')) or 0) > max_bytes do
    local oldest = redis.call('ZRANGE', key('stored'), 0, 0)[1]
    if not oldest then
      redis.call('DEL', key('bytes'))
      return count
    end
    forget(oldest)
    count = count + 1
  end
  return count
end
