-- The keys that changed after a generation, oldest change first, as many as are asked for.
--
-- KEYS     documents by id, ids by generation, the generation
-- ARGV     the generation, and how many at most
-- returns  the store's generation, that of the last key here, then the documents
local generation = tonumber(redis.call('GET', KEYS[3]) or 0)
local found = redis.call(
    'ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2]
)
local reply = {generation, tonumber(found[#found] or ARGV[1])}
for at = 1, #found, 2 do
    reply[#reply + 1] = redis.call('HGET', KEYS[1], found[at])
end
return reply
