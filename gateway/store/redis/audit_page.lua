-- ARGV: at, number, limit, budget, since, until, webhook_id ('' for any), action: exact, a family
-- such as "webhook." or '' for any.
local action = ARGV[8]
local is_family = action:sub(-1) == '.'
local index = ARGV[7] == '' and key('audit') or key('audit', 'of', ARGV[7])
return walk(index, ARGV[1], ARGV[2], ARGV[5], ARGV[6], tonumber(ARGV[3]), tonumber(ARGV[4]),
  function(number)
    local line = redis.call('HGET', key('audit', 'lines'), number)
    local said = cjson.decode(line).action
    if action == '' or said == action or (is_family and said:sub(1, #action) == action) then
      return line
    end
    return nil
  end)
