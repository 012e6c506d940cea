-- Keep a lease that is still one's own for so many milliseconds more; 0 gives it up. 1: it was.
-- KEYS: the lease. ARGV: who holds it, milliseconds.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
