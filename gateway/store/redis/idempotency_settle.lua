-- Settles an idempotency key that is still its holder's and has no answer.
--
-- KEYS     the entry
-- ARGV     the holder's token, then fields and values to set; none: the entry is forgotten
-- returns  1 if done, else 0
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] or redis.call('HEXISTS', KEYS[1], 'status') == 1 then
    return 0
end
if #ARGV == 1 then
    redis.call('DEL', KEYS[1])
else
    redis.call('HSET', KEYS[1], unpack(ARGV, 2))
end
return 1
