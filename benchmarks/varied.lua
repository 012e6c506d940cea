-- For wrk: no two requests are the same, for each names itself.
local number = 0

request = function()
  number = number + 1
  wrk.headers["X-Poll"] = number
  return wrk.format()
end
