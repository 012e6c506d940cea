-- Reserves an idempotency key, unless it is taken.
--
-- KEYS     the entry
-- ARGV     now (epoch seconds), for how many milliseconds it is kept, then fields and values
-- returns  nothing when it is now the caller's, else the fields and values of what stands
local stands = redis.call('HGET', KEYS[1], 'expires_at')
if stands and tonumber(stands) > tonumber(ARGV[1]) then
    return redis.call('HGETALL', KEYS[1])
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return false
