-- ARGV: destination, at, id, limit, budget, then what must match or '': status, kind, job_id.
local LINE = {
  'sink', 'destination', 'kind', 'event_id', 'job_id', 'sequence', 'created_at', 'due_at',
  'replaceable', 'supersedes', 'strict_order', 'attempt', 'status', 'request_id', 'traceparent',
  'tracestate',
  'finished_at',
}
local WANTED = {[13] = ARGV[6], [3] = ARGV[7], [5] = ARGV[8]}
return walk(key('log', ARGV[1]), ARGV[2], ARGV[3], '-inf', '+inf', tonumber(ARGV[4]),
  tonumber(ARGV[5]), function(id)
    local values = redis.call('HMGET', key('message', id), unpack(LINE))
    for place, wanted in pairs(WANTED) do
      if wanted ~= '' and values[place] ~= wanted then
        return nil
      end
    end
    return {values, redis.call('LRANGE', key('attempts', id), 0, -1)}
  end)
