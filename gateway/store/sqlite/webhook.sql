-- name: insert
INSERT INTO webhook (
    id, owner, job_id, all_owners, status, disabled_reason, created_at, updated_at, revision,
    consecutive_failures, last_success_at, failing_since, exhausted_count, document
) VALUES (
    :id, :owner, :job_id, :all_owners, :status, :disabled_reason, :created_at, :updated_at,
    :revision, :consecutive_failures, :last_success_at, :failing_since, :exhausted_count, :document
)
ON CONFLICT (id) DO NOTHING

-- name: get
SELECT * FROM webhook WHERE id = :id

-- name: replace
-- What the gateway counts is not the caller's to write: it may have risen since it was read.
UPDATE webhook
SET owner = :owner, job_id = :job_id, all_owners = :all_owners, status = :status,
    disabled_reason = :disabled_reason, created_at = :created_at, updated_at = :updated_at,
    revision = :revision, document = :document,
    consecutive_failures = CASE WHEN status = 'disabled' AND :status <> 'disabled' THEN 0
        ELSE consecutive_failures END,
    failing_since = CASE WHEN status = 'disabled' AND :status <> 'disabled' THEN NULL
        ELSE failing_since END,
    exhausted_count = CASE WHEN status = 'disabled' AND :status <> 'disabled' THEN 0
        ELSE exhausted_count END
WHERE id = :id AND revision = :before

-- name: delete
DELETE FROM webhook WHERE id = :id

-- name: list
SELECT * FROM webhook
WHERE (created_at, id) > (:cursor_at, :cursor_id) AND job_id IS NULL
    AND (:status IS NULL OR status = :status)
ORDER BY created_at, id
LIMIT :limit

-- name: list_of_owner
SELECT * FROM webhook
WHERE owner = :owner AND (created_at, id) > (:cursor_at, :cursor_id) AND job_id IS NULL
    AND (:status IS NULL OR status = :status)
ORDER BY created_at, id
LIMIT :limit

-- name: list_of_job
SELECT * FROM webhook
WHERE job_id = :job_id AND (:owner IS NULL OR owner = :owner)
    AND (created_at, id) > (:cursor_at, :cursor_id) AND (:status IS NULL OR status = :status)
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
UPDATE webhook
SET consecutive_failures = 0, failing_since = NULL, exhausted_count = 0,
    last_success_at = max(coalesce(last_success_at, 0), :now)
WHERE id = :id
RETURNING *

-- name: note_failure
UPDATE webhook
SET consecutive_failures = consecutive_failures + 1,
    failing_since = coalesce(failing_since, :now),
    exhausted_count = exhausted_count + :exhausted
WHERE id = :id
RETURNING *

-- name: disable
UPDATE webhook
SET status = 'disabled', disabled_reason = :reason, updated_at = :now, revision = revision + 1
WHERE id = :id AND status = 'active'

-- name: prune
-- A callback whose job was never recorded goes too.
DELETE FROM webhook
WHERE rowid IN (
    SELECT callback.rowid FROM webhook AS callback INDEXED BY webhook_of_job
    WHERE callback.job_id IS NOT NULL AND callback.created_at < :before AND NOT EXISTS (
        SELECT 1 FROM job
        WHERE job.id = callback.job_id
            AND (job.finished_at IS NULL OR job.finished_at >= :before)
    )
    LIMIT :limit
)
RETURNING *
