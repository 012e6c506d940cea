-- ARGV: replica, instance, now, until, when to forget an instance. Returns how many replicas live.
redis.call('ZREMRANGEBYSCORE', key('alive'), '-inf', '(' .. ARGV[3])
redis.call('ZREMRANGEBYSCORE', key('instances'), '-inf', '(' .. ARGV[5])
redis.call('ZADD', key('alive'), ARGV[4], ARGV[1])
redis.call('ZADD', key('instances'), ARGV[4], ARGV[2])
return redis.call('ZCARD', key('alive'))
