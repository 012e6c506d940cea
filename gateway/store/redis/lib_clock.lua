-- The server's time in milliseconds since the epoch: one clock for all replicas.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
