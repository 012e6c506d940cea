-- Messages: `message:<id>` is a hash; beside it stand the indexes by which it is found.
--   pair:<…>             what is unfinished of a destination and job, by sequence
--   queue:<sink>:<dest>  what may be claimed, by when: the end of a lease, else when it is due
--   ready:<sink>         each destination by when the first of its queue may be claimed
--   open:<dest>          what is unfinished of a destination
--   waiting:<sink>       what is unfinished and not in flight, by creation
--   flight:<sink>        what is in flight, by the end of its lease
--   log:<dest>           every delivery, by creation
--   finished, bodies     what has ended, by when; of these what still has its body

local FIELDS = {
  'sink', 'destination', 'job_id', 'sequence', 'due_at', 'status', 'attempt', 'fence',
  'lease_until', 'held', 'tried', 'outdated', 'replaceable', 'strict_order', 'finished_at',
  'created_at', 'event_id', 'kind',
}
local FINAL = {
  succeeded = true, exhausted = true, superseded = true, cancelled = true, blocked = true,
  skipped = true,
}

-- A field that is not set is false.
local function load(id)
  local values = redis.call('HMGET', key('message', id), unpack(FIELDS))
  if not values[1] then
    return nil
  end
  local message = {id = id}
  for i, name in ipairs(FIELDS) do
    message[name] = values[i]
  end
  return message
end

local function set(message, name, value)
  message[name] = value
  if value then
    redis.call('HSET', key('message', message.id), name, value)
  else
    redis.call('HDEL', key('message', message.id), name)
  end
end

local function pair_key(destination, job_id)
  return key('pair', #destination, destination, job_id)
end

-- Puts a destination where the first of its queue belongs.
local function requeue(sink, destination)
  local first = redis.call('ZRANGE', key('queue', sink, destination), 0, 0, 'WITHSCORES')
  if first[1] then
    redis.call('ZADD', key('ready', sink), first[2], destination)
  else
    redis.call('ZREM', key('ready', sink), destination)
  end
end

-- Puts a message where its lease, its order and its due time say.
local function place(message)
  local queue = key('queue', message.sink, message.destination)
  local at = message.due_at
  if message.finished_at then
    at = nil
  elseif message.lease_until then
    at = message.lease_until
  elseif message.held then
    at = nil
  end
  if at then
    redis.call('ZADD', queue, at, message.id)
  else
    redis.call('ZREM', queue, message.id)
  end
  requeue(message.sink, message.destination)
end

local function finish(message, status, at, stripe)
  set(message, 'status', status)
  set(message, 'finished_at', at)
  set(message, 'lease_until', false)
  redis.call('ZREM', pair_key(message.destination, message.job_id), message.id)
  redis.call('SREM', key('open', message.destination), message.id)
  redis.call('ZREM', key('waiting', message.sink), message.id)
  redis.call('ZREM', key('flight', message.sink), message.id)
  redis.call('ZADD', key('finished'), at, message.id)
  redis.call('ZADD', key('bodies'), at, message.id)
  place(message)
  if message.sink == 'webhook' then
    audit(stripe, at, 'delivery.' .. status, message.destination, cjson.encode({
      action = 'delivery.' .. status,
      webhook_id = message.destination,
      actor = 'gateway',
      details = {
        delivery_id = message.id,
        event_id = message.event_id,
        event = message.kind,
        job_id = message.job_id,
        attempts = tonumber(message.attempt),
      },
    }))
  end
end

-- Says which messages of a destination and job wait for an earlier one: with strict order until
-- that has ended, else until it has been tried. Those of one sequence do not wait for each other.
local function arrange(destination, job_id)
  local ids = redis.call('ZRANGE', pair_key(destination, job_id), 0, -1, 'WITHSCORES')
  local unfinished, untried, untried_here, last = false, false, false, nil
  for i = 1, #ids, 2 do
    if ids[i + 1] ~= last then
      unfinished, untried = i > 1, untried or untried_here
      last = ids[i + 1]
    end
    local message = load(ids[i])
    local held = untried or (unfinished and message.strict_order)
    if held ~= (message.held and true or false) then
      set(message, 'held', held and '1' or false)
    end
    place(message)
    untried_here = untried_here or not message.tried
  end
end

-- One in flight is only marked: should its attempt fail, it is not tried again.
local function supersede(message, stripe)
  local earlier = redis.call(
    'ZRANGEBYSCORE', pair_key(message.destination, message.job_id), '-inf',
    '(' .. message.sequence)
  for _, id in ipairs(earlier) do
    local old = load(id)
    if old.replaceable then
      set(old, 'outdated', '1')
      if old.status ~= 'in_flight' then
        finish(old, 'superseded', message.created_at, stripe)
      end
    end
  end
end

-- Adds messages, each of `width` arguments from `first` on; one that is there is left as it is.
local NAMES = {
  'sink', 'destination', 'kind', 'event_id', 'job_id', 'sequence', 'created_at', 'due_at',
  'replaceable', 'supersedes', 'strict_order', 'attempt', 'status', 'request_id', 'traceparent',
  'tracestate', 'body',
}
local function insert(id, first)
  local name = key('message', id)
  if redis.call('EXISTS', name) == 1 then
    return nil
  end
  local pairs_of = {'fence', '0'}
  for i, field in ipairs(NAMES) do
    local value = ARGV[first + i - 1]
    if value ~= '' or field == 'body' then
      pairs_of[#pairs_of + 1] = field
      pairs_of[#pairs_of + 1] = value
    end
  end
  redis.call('HSET', name, unpack(pairs_of))
  return load(id)
end

local function insert_all(first, stripe)
  local added, touched = {}, {}
  for at = first, #ARGV, #NAMES + 1 do
    local message = insert(ARGV[at], at + 1)
    if message then
      redis.call('ZADD', key('log', message.destination), message.created_at, message.id)
      redis.call('SADD', key('sinks'), message.sink)
      if FINAL[message.status] then
        finish(message, message.status, message.created_at, stripe)
      else
        redis.call(
          'ZADD', pair_key(message.destination, message.job_id), message.sequence, message.id)
        redis.call('SADD', key('open', message.destination), message.id)
        redis.call('ZADD', key('waiting', message.sink), message.created_at, message.id)
        message.supersedes = ARGV[at + 10] ~= ''
        added[#added + 1] = message
      end
    end
  end
  for _, message in ipairs(added) do
    if message.supersedes then
      supersede(message, stripe)
    end
  end
  for _, message in ipairs(added) do
    local pair = pair_key(message.destination, message.job_id)
    if not touched[pair] then
      touched[pair] = true
      arrange(message.destination, message.job_id)
    end
  end
  return #added
end
