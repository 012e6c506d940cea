-- name: append
INSERT INTO audit (at, action, webhook_id, actor, details)
VALUES (:at, :action, :webhook_id, :actor, :details)

-- name: page
SELECT * FROM audit
WHERE (at, number) < (:cursor_at, :cursor_number)
    AND at >= :since AND at < :until AND (:action IS NULL OR action GLOB :action)
ORDER BY at DESC, number DESC
LIMIT :limit

-- name: page_of_webhook
SELECT * FROM audit
WHERE webhook_id = :webhook_id AND (at, number) < (:cursor_at, :cursor_number)
    AND at >= :since AND at < :until AND (:action IS NULL OR action GLOB :action)
ORDER BY at DESC, number DESC
LIMIT :limit

-- name: prune
DELETE FROM audit
WHERE number IN (SELECT number FROM audit WHERE at < :before ORDER BY at LIMIT :limit)
