-- name: insert
INSERT INTO webhook (
    id, owner, job_id, all_owners, status, disabled_reason, created_at, updated_at, revision,
    consecutive_failures, last_success_at, document
) VALUES (
    :id, :owner, :job_id, :all_owners, :status, :disabled_reason, :created_at, :updated_at,
    :revision, :consecutive_failures, :last_success_at, :document
)
ON CONFLICT (id) DO NOTHING

-- name: get
SELECT * FROM webhook WHERE id = :id

-- name: replace
UPDATE webhook
SET owner = :owner, job_id = :job_id, all_owners = :all_owners, status = :status,
    disabled_reason = :disabled_reason, created_at = :created_at, updated_at = :updated_at,
    revision = :revision, consecutive_failures = :consecutive_failures,
    last_success_at = :last_success_at, document = :document
WHERE id = :id AND revision = :before

-- name: delete
DELETE FROM webhook WHERE id = :id

-- name: list
SELECT * FROM webhook
WHERE (created_at, id) > (:cursor_at, :cursor_id)
ORDER BY created_at, id
LIMIT :limit

-- name: list_of_owner
SELECT * FROM webhook
WHERE owner = :owner AND (created_at, id) > (:cursor_at, :cursor_id)
ORDER BY created_at, id
LIMIT :limit

-- name: candidates
-- Three disjoint sets, each found by its own index: an owner's own, those of every owner, the job's.
SELECT * FROM webhook
WHERE owner = :owner AND job_id IS NULL AND status = 'active'
UNION ALL
SELECT * FROM webhook
WHERE all_owners AND job_id IS NULL AND owner <> :owner AND status = 'active'
UNION ALL
SELECT * FROM webhook
WHERE job_id = :job_id AND (owner = :owner OR all_owners) AND status = 'active'

-- name: count
SELECT count(*) AS number FROM webhook WHERE owner = :owner AND job_id IS NULL

-- name: note_success
UPDATE webhook SET consecutive_failures = 0, last_success_at = max(coalesce(last_success_at, 0), :now)
WHERE id = :id

-- name: note_failure
UPDATE webhook SET consecutive_failures = consecutive_failures + 1 WHERE id = :id

-- name: disable
UPDATE webhook
SET status = 'disabled', disabled_reason = :reason, updated_at = :now, revision = revision + 1
WHERE id = :id AND status = 'active'
