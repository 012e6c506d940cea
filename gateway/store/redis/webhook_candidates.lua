-- ARGV: owner, job_id. Returns the rows of every active webhook that may want the job's events:
-- the owner's own, those of every owner, the job's.
local owner, job_id = ARGV[1], ARGV[2]
local rows = {}
for _, id in ipairs(redis.call('SUNION', key('active', 'owner', owner), key('active', 'all'))) do
  rows[#rows + 1] = row(id)
end
for _, id in ipairs(redis.call('ZRANGE', key('list', 'job', job_id), 0, -1)) do
  local found = row(id)
  if found[2] == 'active' and (found[11] == owner or found[13]) then
    rows[#rows + 1] = found
  end
end
return rows
