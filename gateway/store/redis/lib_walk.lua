-- Walks an index (a sorted set, newest first) from after the position (at, id), down to `low`.
-- `take(member)` is asked of each; what it returns, but for nil, is kept, at most `limit` of them.
-- At most `budget` members are looked at: the caller goes on from the position that is returned.
-- Returns {1 when the end was reached, at, id, kept...}; each kept item is {at, id, item}.
local function walk(index, at, id, low, high, limit, budget, take)
  local first = redis.call('ZCOUNT', index, high, '+inf')
  if id ~= '' then
    local rank = redis.call('ZREVRANK', index, id)
    local passed = rank and rank + 1 or redis.call('ZCOUNT', index, '(' .. at, '+inf')
    first = math.max(first, passed)
  end
  local found = redis.call('ZREVRANGE', index, first, first + budget - 1, 'WITHSCORES')
  local result = {#found < 2 * budget and 1 or 0, at, id}
  for i = 1, #found, 2 do
    local member, score = found[i], found[i + 1]
    if tonumber(score) < tonumber(low) then
      result[1] = 1
      break
    end
    local is_before = id ~= '' and tonumber(score) == tonumber(at) and member >= id
    local item = nil
    if not is_before then
      result[2], result[3] = score, member
      item = take(member)
    end
    if item ~= nil then
      result[#result + 1] = {score, member, item}
      if #result - 3 == limit then
        break
      end
    end
  end
  return result
end
