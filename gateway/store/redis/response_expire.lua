-- ARGV: the group, from when on all is stale, the channel, and what the others are to hear.
-- Returns how many variants there are.
local group, now, found = key(ARGV[1]), tonumber(ARGV[2]), 0
local fields = redis.call('HGETALL', group)
for i = 1, #fields, 2 do
  local field, value = fields[i], fields[i + 1]
  if field == '' then
    found = tonumber(value)
  else
    local parts, at = {}, 1
    while at <= #value do
      local vary, fresh_until, length = head(value, at)
      parts[#parts + 1] = struct.pack('>c16d', vary, math.min(fresh_until, now))
      parts[#parts + 1] = value:sub(at + 24, at + length - 1)
      at = at + length
    end
    redis.call('HSET', group, field, table.concat(parts))
  end
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return found
