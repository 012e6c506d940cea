-- ARGV: the group, the channel, and what the other replicas are to hear.
-- Returns how many variants there were.
local found = redis.call('HGET', key(ARGV[1]), '')
forget(ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return tonumber(found or 0)
