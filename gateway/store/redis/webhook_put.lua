-- ARGV: stripe, at, action, line, id, the revision it must have ('' for a new one), revision, owner,
-- job_id, all_owners, status, disabled_reason, created_at, updated_at, document, and of a new one
-- consecutive_failures, last_success_at, failing_since, exhausted_count.
-- Returns 1, or 0 when it is there already, is gone, or has another revision.
local id, before = ARGV[5], ARGV[6]
local old = row(id)
if (old and old[5] or '') ~= before then
  return 0
end
if old then
  unindex(id)
end
for i, name in ipairs({'revision', 'owner', 'job_id', 'all_owners', 'status', 'disabled_reason',
    'created_at', 'updated_at', 'document'}) do
  put(id, name, ARGV[6 + i])
end
-- What the gateway counts is not the caller's to write: it may have risen since it was read.
if not old then
  for i, name in ipairs({'consecutive_failures', 'last_success_at', 'failing_since',
      'exhausted_count'}) do
    put(id, name, ARGV[15 + i])
  end
elseif old[2] == 'disabled' and ARGV[11] ~= 'disabled' then
  put(id, 'consecutive_failures', '0')
  put(id, 'failing_since', '')
  put(id, 'exhausted_count', '0')
end
index(id)
tell(2, id)
return 1
