-- name: insert
INSERT INTO message (
    id, sink, destination, kind, event_id, job_id, sequence, created_at, due_at, replaceable,
    supersedes, strict_order, attempt, status, request_id, traceparent, tracestate,
    finished_at
) VALUES (
    :id, :sink, :destination, :kind, :event_id, :job_id, :sequence, :created_at, :due_at,
    :replaceable, :supersedes, :strict_order, :attempt, :status, :request_id, :traceparent,
    :tracestate, :finished_at
)
ON CONFLICT (id) DO NOTHING

-- name: insert_payload
INSERT INTO payload (message_id, body) VALUES (:id, :body)

-- name: supersede
-- One that is in flight is only marked: should its attempt fail, it is not tried again.
UPDATE message
SET outdated = 1,
    status = CASE WHEN status = 'in_flight' THEN status ELSE 'superseded' END,
    finished_at = CASE WHEN status = 'in_flight' THEN NULL ELSE :created_at END
WHERE destination = :destination AND job_id = :job_id AND sequence < :sequence
    AND replaceable AND finished_at IS NULL

-- name: arrange
-- Which messages of one destination and job wait for an earlier one.
UPDATE message
SET held = EXISTS (
    SELECT 1 FROM message AS earlier
    WHERE earlier.destination = message.destination AND earlier.job_id = message.job_id
        AND earlier.sequence < message.sequence AND earlier.finished_at IS NULL
        AND (message.strict_order OR NOT earlier.tried)
)
WHERE destination = :destination AND job_id = :job_id AND finished_at IS NULL

-- name: arrange_all
UPDATE message
SET held = EXISTS (
    SELECT 1 FROM message AS earlier
    WHERE earlier.destination = message.destination AND earlier.job_id = message.job_id
        AND earlier.sequence < message.sequence AND earlier.finished_at IS NULL
        AND (message.strict_order OR NOT earlier.tried)
)
WHERE finished_at IS NULL

-- name: drop_outdated
-- Superseded while in flight, and its lease ran out: nobody will say what became of it. The index is
-- named: it is nearly always empty, and another one would find everything that waits.
UPDATE message INDEXED BY message_outdated
SET status = 'superseded', finished_at = :now, lease_until = NULL
WHERE sink = :sink AND outdated AND finished_at IS NULL AND coalesce(lease_until, 0) <= :now
RETURNING destination, job_id

-- name: claim
-- The destinations whose first message is due, then a few messages of each.
WITH ready AS MATERIALIZED (
    SELECT destination FROM queue
    WHERE sink = :sink AND claimable_at <= :now
        AND destination NOT IN (SELECT value FROM json_each(:busy))
    ORDER BY claimable_at
    LIMIT :limit
)
UPDATE message
SET status = 'in_flight', attempt = attempt + 1, fence = fence + 1, lease_until = :lease_until
WHERE rowid IN (
    SELECT chosen.rowid
    FROM ready CROSS JOIN message AS chosen ON chosen.rowid IN (
        SELECT candidate.rowid FROM message AS candidate
        WHERE candidate.sink = :sink AND candidate.destination = ready.destination
            AND candidate.claimable_at <= :now
        ORDER BY candidate.claimable_at, candidate.rowid
        LIMIT :share
    )
    ORDER BY chosen.claimable_at, chosen.rowid
    LIMIT :limit
)
RETURNING *, (SELECT body FROM payload WHERE message_id = message.id) AS body

-- name: settle
UPDATE message
SET status = :status, due_at = coalesce(:due_at, due_at), tried = 1, lease_until = NULL,
    finished_at = :finished_at
WHERE id = :id AND fence = :fence AND status = 'in_flight'
RETURNING destination, job_id

-- name: supersede_settled
UPDATE message SET status = 'superseded', finished_at = :now
WHERE id = :id AND outdated AND finished_at IS NULL

-- name: insert_attempt
INSERT INTO attempt (
    message_id, number, started_at, duration_seconds, status_code, error_kind, detail,
    response_excerpt
) VALUES (
    :message_id, :number, :started_at, :duration_seconds, :status_code, :error_kind, :detail,
    :response_excerpt
)

-- name: next_due_at
SELECT min(claimable_at) AS due_at FROM queue WHERE sink = :sink

-- name: deliveries
SELECT message.*, x'' AS body FROM message
WHERE destination = :destination AND (created_at, id) < (:cursor_at, :cursor_id)
    AND (:status IS NULL OR status = :status) AND (:kind IS NULL OR kind = :kind)
    AND (:job_id IS NULL OR job_id = :job_id)
ORDER BY created_at DESC, id DESC
LIMIT :limit

-- name: attempts
SELECT * FROM attempt
WHERE message_id IN (SELECT value FROM json_each(:message_ids))
ORDER BY message_id, number

-- name: get
-- The body of one that ended long ago is gone.
SELECT message.*, coalesce(payload.body, x'') AS body
FROM message LEFT JOIN payload ON payload.message_id = message.id
WHERE message.id = :id

-- name: backlog
SELECT sink,
    count(*) FILTER (WHERE status <> 'in_flight') AS waiting,
    count(*) FILTER (WHERE status = 'in_flight') AS in_flight,
    min(created_at) FILTER (WHERE status <> 'in_flight') AS oldest_at
FROM message
WHERE finished_at IS NULL
GROUP BY sink
ORDER BY sink

-- name: cancel
-- An attempt under way is left to its worker.
UPDATE message SET status = 'cancelled', finished_at = :now, lease_until = NULL
WHERE destination = :destination AND finished_at IS NULL AND coalesce(lease_until, 0) <= :now

-- name: void_leases
UPDATE message
SET status = CASE WHEN tried THEN 'retrying' ELSE 'pending' END, lease_until = NULL,
    fence = fence + 1
WHERE status = 'in_flight' AND finished_at IS NULL

-- name: bodies_to_drop
SELECT id FROM message
WHERE bodiless = 0 AND finished_at < :before
ORDER BY finished_at
LIMIT :limit

-- name: drop_payload
DELETE FROM payload WHERE message_id = :id

-- name: mark_bodiless
UPDATE message SET bodiless = 1 WHERE id = :id

-- name: prune
DELETE FROM message
WHERE rowid IN (
    SELECT rowid FROM message WHERE bodiless IN (0, 1) AND finished_at < :before LIMIT :limit
)
