-- Webhooks, all in one partition: `webhook:<id>` is a hash; beside it stand the indexes.
--   list, list:owner:<owner>          the general ones, by creation
--   list:job:<job>, callbacks         those of one job, by creation
--   active:owner:<owner>, active:all  the general ones that are sent events; of every owner's jobs

local ROW = {
  'document', 'status', 'disabled_reason', 'updated_at', 'revision', 'consecutive_failures',
  'last_success_at', 'failing_since', 'exhausted_count', 'created_at', 'owner', 'job_id',
  'all_owners',
}

local function row(id)
  local values = redis.call('HMGET', key('webhook', id), unpack(ROW))
  return values[1] and values or nil
end

local function put(id, name, value)
  if value ~= '' then
    redis.call('HSET', key('webhook', id), name, value)
  else
    redis.call('HDEL', key('webhook', id), name)
  end
end

local function unindex(id)
  local old = row(id)
  local owner, job_id = old[11], old[12]
  for _, index in ipairs({key('list'), key('list', 'owner', owner), key('callbacks'),
      key('list', 'job', job_id or '')}) do
    redis.call('ZREM', index, id)
  end
  redis.call('SREM', key('active', 'owner', owner), id)
  redis.call('SREM', key('active', 'all'), id)
end

local function index(id)
  local new = row(id)
  local status, created_at, owner, job_id, all_owners = new[2], new[10], new[11], new[12], new[13]
  if job_id then
    redis.call('ZADD', key('list', 'job', job_id), created_at, id)
    redis.call('ZADD', key('callbacks'), created_at, id)
    return
  end
  redis.call('ZADD', key('list'), created_at, id)
  redis.call('ZADD', key('list', 'owner', owner), created_at, id)
  if status == 'active' then
    redis.call('SADD', key('active', 'owner', owner), id)
    if all_owners then
      redis.call('SADD', key('active', 'all'), id)
    end
  end
end

-- The line that tells of a change, if there is one: ARGV from `first` are at, action, line.
local function tell(first, id)
  if ARGV[first] ~= '' then
    audit(tonumber(ARGV[1]), ARGV[first], ARGV[first + 1], id, ARGV[first + 2])
  end
end
