-- ARGV: at, id, limit, budget, since, until, owner, state, subject ('' for any).
local owner, state, subject = ARGV[7], ARGV[8], ARGV[9]
local index = key('history')
if subject ~= '' then
  index = key('history', 'subject', subject)
elseif owner ~= '' then
  index = key('history', 'owner', owner)
end
return walk(index, ARGV[1], ARGV[2], ARGV[5], ARGV[6], tonumber(ARGV[3]), tonumber(ARGV[4]),
  function(id)
    local values = redis.call('HMGET', key('job', id), 'document', 'owner', 'state', 'subject')
    local wrong = (owner ~= '' and values[2] ~= owner) or (state ~= '' and values[3] ~= state)
      or (subject ~= '' and values[4] ~= subject)
    if wrong then
      return nil
    end
    return values[1]
  end)
