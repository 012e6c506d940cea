-- name: insert
INSERT INTO api_key (id, sha256, owner, created_at, expires_at, revoked_at, changed, document)
VALUES (
    :id, :sha256, :owner, :created_at, :expires_at, :revoked_at,
    (SELECT coalesce(max(changed), 0) + 1 FROM api_key), :document
)
ON CONFLICT DO NOTHING

-- name: end
UPDATE api_key
SET expires_at = min(coalesce(expires_at, :ends_at), :ends_at),
    changed = (SELECT max(changed) + 1 FROM api_key)
WHERE id = :id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :now)

-- name: revoke
UPDATE api_key
SET revoked_at = :now, changed = (SELECT max(changed) + 1 FROM api_key)
WHERE id = :id AND revoked_at IS NULL

-- name: get
SELECT api_key.*, last_used_at
FROM api_key LEFT JOIN api_key_use ON api_key_use.key_id = api_key.id
WHERE id = :id

-- name: list
SELECT api_key.*, last_used_at
FROM api_key LEFT JOIN api_key_use ON api_key_use.key_id = api_key.id
WHERE (created_at, id) > (:cursor_at, :cursor_id)
ORDER BY created_at, id
LIMIT :limit

-- name: list_of_owner
SELECT api_key.*, last_used_at
FROM api_key LEFT JOIN api_key_use ON api_key_use.key_id = api_key.id
WHERE owner = :owner AND (created_at, id) > (:cursor_at, :cursor_id)
ORDER BY created_at, id
LIMIT :limit

-- name: changes
SELECT * FROM api_key WHERE changed > :after

-- name: generation
SELECT coalesce(max(changed), 0) AS generation FROM api_key

-- name: note_used
INSERT INTO api_key_use (key_id, last_used_at) VALUES (:key_id, :at)
ON CONFLICT (key_id) DO UPDATE SET last_used_at = excluded.last_used_at
WHERE excluded.last_used_at > api_key_use.last_used_at
