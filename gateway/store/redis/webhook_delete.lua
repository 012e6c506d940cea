-- ARGV: stripe, at, action, line, id. Returns 1, or 0 when there is none.
if not row(ARGV[5]) then
  return 0
end
unindex(ARGV[5])
redis.call('DEL', key('webhook', ARGV[5]))
tell(2, ARGV[5])
return 1
