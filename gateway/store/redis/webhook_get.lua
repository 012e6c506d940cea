-- ARGV: id. Returns the row; nothing when there is none.
return row(ARGV[1]) or false
