-- Writes keys, all or none, each only if it is as it was when the writer read it.
--
-- KEYS     documents by id, ids by hash, ids by generation, all members, the generation; then the
--          members of each key's owner
-- ARGV     the channel to tell; then five a key: id, document as read (empty: a new key), document,
--          hash, member of its pages
-- returns  1 if written, else 0
local documents, hashes, changed, all, generation = unpack(KEYS, 1, 5)

local function is_as_read(at)
    local id, read, sha = ARGV[at], ARGV[at + 1], ARGV[at + 3]
    local stands = redis.call('HGET', documents, id)
    if read == '' then
        return not stands and redis.call('HEXISTS', hashes, sha) == 0
    end
    return stands == read
end

for at = 2, #ARGV, 5 do
    if not is_as_read(at) then
        return 0
    end
end
local now = 0
for at = 2, #ARGV, 5 do
    local id, document, sha, member = ARGV[at], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
    now = redis.call('INCR', generation)
    redis.call('HSET', documents, id, document)
    redis.call('HSET', hashes, sha, id)
    redis.call('ZADD', changed, now, id)
    redis.call('ZADD', all, 0, member)
    redis.call('ZADD', KEYS[5 + (at + 3) / 5], 0, member)
end
redis.call('PUBLISH', ARGV[1], now)
return 1
