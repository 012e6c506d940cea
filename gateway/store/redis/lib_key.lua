-- KEYS[1] is the partition's prefix, "{gw:7}": every key made of it lies on the same node.
-- Times are decimal strings and are handed on as such: a Lua number loses digits when it is written.

local function key(...)
  return KEYS[1] .. ':' .. table.concat({...}, ':')
end

local function zero_padded(number)
  return string.format('%018.0f', number)
end

-- One line of the audit log. `stripe` tells the logs of the partitions apart, so that a line's
-- number is its own in all of them.
local function audit(stripe, at, action, webhook_id, line)
  local number = zero_padded(redis.call('INCR', key('audit', 'count')) * 64 + stripe)
  redis.call('HSET', key('audit', 'lines'), number, line)
  redis.call('ZADD', key('audit'), at, number)
  redis.call('ZADD', key('audit', 'of', webhook_id), at, number)
end
