-- ARGV: stripe, at, action, line, id, reason, now. Returns 1, or 0 when it is not active.
local id = ARGV[5]
local old = row(id)
if not old or old[2] ~= 'active' then
  return 0
end
unindex(id)
put(id, 'status', 'disabled')
put(id, 'disabled_reason', ARGV[6])
put(id, 'updated_at', ARGV[7])
redis.call('HINCRBY', key('webhook', id), 'revision', 1)
index(id)
tell(2, id)
return 1
