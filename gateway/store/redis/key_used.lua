-- Remembers when keys were last used; an earlier time changes nothing.
--
-- KEYS     last uses by id
-- ARGV     two a key: id, time
for at = 1, #ARGV, 2 do
    local known = redis.call('HGET', KEYS[1], ARGV[at])
    if not known or tonumber(known) < tonumber(ARGV[at + 1]) then
        redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
    end
end
return #ARGV / 2
