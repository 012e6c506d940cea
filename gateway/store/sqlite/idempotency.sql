-- name: begin
INSERT INTO idempotency (
    scope, key, fingerprint, token, request_id, started_at, lease_until, expires_at
) VALUES (
    :scope, :key, :fingerprint, :token, :request_id, :started_at, :lease_until, :expires_at
)
ON CONFLICT (scope, key) DO UPDATE
SET fingerprint = excluded.fingerprint, token = excluded.token, request_id = excluded.request_id,
    started_at = excluded.started_at, lease_until = excluded.lease_until,
    expires_at = excluded.expires_at, status = NULL, headers = NULL, body = NULL
WHERE idempotency.expires_at <= :now

-- name: get
SELECT * FROM idempotency WHERE scope = :scope AND key = :key

-- name: finish
UPDATE idempotency SET status = :status, headers = :headers, body = :body
WHERE scope = :scope AND key = :key AND token = :token AND status IS NULL

-- name: free
DELETE FROM idempotency
WHERE scope = :scope AND key = :key AND token = :token AND status IS NULL

-- name: interrupt
UPDATE idempotency SET lease_until = 0
WHERE scope = :scope AND key = :key AND token = :token AND status IS NULL

-- name: void
UPDATE idempotency SET lease_until = 0 WHERE status IS NULL AND lease_until > 0

-- name: prune
DELETE FROM idempotency WHERE expires_at <= :now
