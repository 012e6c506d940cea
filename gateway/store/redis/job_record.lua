-- A job's new state with its events and messages: all of it, or nothing.
-- ARGV: stripe, the version it must have ('' for none), id, version, owner, subject, upstream,
-- state, created_at, when it ended or '', document, channel, notice, the number of events, the events,
-- the messages. Returns 1, or 0 when the job is there already or its version is another.
local stripe, before, id, version = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local owner, subject, upstream, state = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local created_at, ended, document = ARGV[9], ARGV[10] ~= '', ARGV[11]
local job = key('job', id)
local old = redis.call('HMGET', job, 'version', 'subject', 'upstream', 'due_at')
if (old[1] or '') ~= before then
  return 0
end

redis.call('HSET', job, 'version', version, 'owner', owner, 'subject', subject,
  'upstream', upstream, 'state', state, 'document', document)
if not old[1] then
  redis.call('ZADD', key('history'), created_at, id)
  redis.call('ZADD', key('history', 'owner', owner), created_at, id)
end
if subject ~= '' and old[2] ~= subject then
  redis.call('ZADD', key('history', 'subject', subject), created_at, id)
  if old[2] and old[2] ~= '' then
    redis.call('ZREM', key('history', 'subject', old[2]), id)
  end
end

-- A lease stays with who holds it; an ended job is never due again.
local place = redis.call('ZSCORE', key('due'), id)
if old[3] and old[3] ~= upstream then
  redis.call('ZREM', key('due', 'of', old[3]), id)
end
if ended then
  redis.call('HDEL', job, 'due_at')
  redis.call('ZREM', key('due'), id)
  redis.call('ZREM', key('due', 'of', upstream), id)
  redis.call('ZREM', key('unfinished'), id)
  redis.call('ZADD', key('ended'), ARGV[10], id)
elseif not old[1] or old[4] then
  if not old[1] then
    place = '0'
    redis.call('HSET', job, 'due_at', '0')
    redis.call('ZADD', key('unfinished'), created_at, id)
    redis.call('ZADD', key('due'), place, id)
  end
  redis.call('ZADD', key('due', 'of', upstream), place, id)
end

local events = tonumber(ARGV[14])
for i = 15, 14 + events do
  redis.call('RPUSH', key('events', id), ARGV[i])
end
insert_all(15 + events, stripe)
redis.call('PUBLISH', ARGV[12], ARGV[13])
return 1
