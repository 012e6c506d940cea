-- ARGV: stripe, then the messages.
return insert_all(2, tonumber(ARGV[1]))
