-- A page of keys with their last uses.
--
-- KEYS     members of the page, documents by id, last uses by id
-- ARGV     where to begin (ZRANGEBYLEX), how many at most, and how long a member is before the id
-- returns  two a key: its document, and its last use or an empty string
local reply = {}
for _, member in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, ARGV[2])) do
    local id = member:sub(ARGV[3] + 1)
    reply[#reply + 1] = redis.call('HGET', KEYS[2], id)
    reply[#reply + 1] = redis.call('HGET', KEYS[3], id) or ''
end
return reply
