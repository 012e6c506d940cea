-- KEYS: the group. ARGV: the channel, and what the other replicas are to hear.
-- Returns how many variants there were.
local found = redis.call('HGET', KEYS[1], '')
redis.call('UNLINK', KEYS[1])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return tonumber(found or 0)
