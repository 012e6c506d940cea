-- ARGV: at, id, limit, budget, owner, job_id, status ('' for any). Oldest first.
-- Returns {1 when the end was reached, at, id, rows...}: the position to go on from.
local at, id, owner, job_id, status = ARGV[1], ARGV[2], ARGV[5], ARGV[6], ARGV[7]
local listed = key('list')
if job_id ~= '' then
  listed = key('list', 'job', job_id)
elseif owner ~= '' then
  listed = key('list', 'owner', owner)
end
local first = 0
if id ~= '' then
  local rank = redis.call('ZRANK', listed, id)
  first = rank and rank + 1 or redis.call('ZCOUNT', listed, '-inf', '(' .. at)
end
local budget = tonumber(ARGV[4])
local found = redis.call('ZRANGE', listed, first, first + budget - 1, 'WITHSCORES')
local result = {#found < 2 * budget and 1 or 0, at, id}
for i = 1, #found, 2 do
  local member, score = found[i], found[i + 1]
  local is_past = id ~= '' and tonumber(score) == tonumber(at) and member <= id
  local values = nil
  if not is_past then
    result[2], result[3] = score, member
    values = row(member)
  end
  if values and (owner == '' or values[11] == owner) and (status == '' or values[2] == status) then
    result[#result + 1] = values
    if #result - 3 == tonumber(ARGV[3]) then
      result[1] = (i + 1 == #found and result[1] == 1) and 1 or 0
      break
    end
  end
end
return result
