-- name: insert
INSERT INTO job (
    id, owner, subject, upstream, state, version, created_at, finished_at, due_at, document
) VALUES (
    :id, :owner, :subject, :upstream, :state, :version, :created_at, :finished_at,
    CASE WHEN :ended THEN NULL ELSE 0.0 END, :document
)
ON CONFLICT (id) DO NOTHING

-- name: update
-- A lease stays with who holds it; an ended job is never due again.
UPDATE job
SET owner = :owner, subject = :subject, upstream = :upstream, state = :state, version = :version,
    created_at = :created_at, finished_at = :finished_at,
    due_at = CASE WHEN :ended THEN NULL ELSE due_at END, document = :document
WHERE id = :id AND version = :before

-- name: insert_event
INSERT INTO event (job_id, sequence, type, at, event_id, body)
VALUES (:job_id, :sequence, :type, :at, :event_id, :body)

-- name: get
SELECT document FROM job WHERE id = :id

-- name: latest_of_subject
SELECT document FROM job WHERE subject = :subject ORDER BY created_at DESC, id DESC LIMIT 1

-- name: claim_due
UPDATE job
SET fence = fence + 1, lease_until = :lease_until
WHERE rowid IN (
    SELECT rowid FROM job WHERE claimable_at <= :now ORDER BY claimable_at LIMIT :limit
)
RETURNING document, fence, lease_until, due_at

-- name: claim_due_of_upstream
UPDATE job
SET fence = fence + 1, lease_until = :lease_until
WHERE rowid IN (
    SELECT rowid FROM job
    WHERE upstream = :upstream AND claimable_at <= :now
    ORDER BY claimable_at LIMIT :limit
)
RETURNING document, fence, lease_until, due_at

-- name: renew
UPDATE job SET lease_until = :lease_until
WHERE id = :id AND fence = :fence AND lease_until IS NOT NULL

-- name: release
UPDATE job
SET lease_until = NULL, due_at = CASE WHEN due_at IS NULL THEN NULL ELSE :due_at END
WHERE id = :id AND fence = :fence AND lease_until IS NOT NULL

-- name: void_leases
UPDATE job
SET lease_until = NULL, fence = fence + 1, due_at = CASE WHEN due_at IS NULL THEN NULL ELSE 0.0 END
WHERE lease_until IS NOT NULL

-- name: unfinished
SELECT document FROM job WHERE due_at IS NOT NULL ORDER BY created_at, id

-- name: list
SELECT document FROM job
WHERE (created_at, id) < (:cursor_at, :cursor_id)
    AND created_at >= coalesce(:since, -9e999) AND created_at < coalesce(:until, 9e999)
    AND (:state IS NULL OR state = :state) AND (:subject IS NULL OR subject = :subject)
ORDER BY created_at DESC, id DESC
LIMIT :limit

-- name: list_of_owner
SELECT document FROM job
WHERE owner = :owner AND (created_at, id) < (:cursor_at, :cursor_id)
    AND created_at >= coalesce(:since, -9e999) AND created_at < coalesce(:until, 9e999)
    AND (:state IS NULL OR state = :state) AND (:subject IS NULL OR subject = :subject)
ORDER BY created_at DESC, id DESC
LIMIT :limit

-- name: timeline
SELECT sequence, type, at, event_id, body FROM event
WHERE job_id = :job_id AND sequence > :after_sequence
ORDER BY sequence
LIMIT :limit

-- name: prune
-- What ended before was created before: the index on the creation leads to the oldest at once.
DELETE FROM job
WHERE id IN (
    SELECT id FROM job INDEXED BY job_history
    WHERE created_at < :before AND finished_at < :before
    ORDER BY created_at LIMIT :limit
)
