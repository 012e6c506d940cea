-- ARGV: stripe, then of each line: at, action, webhook_id, line.
for i = 2, #ARGV, 4 do
  audit(tonumber(ARGV[1]), ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
end
return 1
