-- Idempotency keys. `lease_until` in the past and no answer: the request was interrupted, and what
-- became of it is not known.
BEGIN IMMEDIATE;

CREATE TABLE idempotency (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    token TEXT NOT NULL,
    request_id TEXT NOT NULL,
    started_at REAL NOT NULL,
    lease_until REAL NOT NULL,
    expires_at REAL NOT NULL,
    status INTEGER,
    headers BLOB,
    body BLOB,
    PRIMARY KEY (scope, key)
) STRICT;

CREATE INDEX idempotency_expires ON idempotency (expires_at);
CREATE INDEX idempotency_open ON idempotency (lease_until) WHERE status IS NULL;

PRAGMA user_version = 4;
COMMIT;
