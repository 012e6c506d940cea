-- The audit log; when a webhook counts as dead; bodies that end before the log of their delivery.
BEGIN IMMEDIATE;

-- Lines are only ever added. `details` is a JSON object.
CREATE TABLE audit (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    action TEXT NOT NULL,
    webhook_id TEXT NOT NULL,
    actor TEXT NOT NULL,
    details TEXT NOT NULL
) STRICT;

CREATE INDEX audit_at ON audit (at, number, action);
CREATE INDEX audit_of_webhook ON audit (webhook_id, at, number, action);

CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

-- Its retention deletes what is old; no statement deletes what is not.
CREATE TRIGGER audit_is_kept_for_a_day BEFORE DELETE ON audit
WHEN OLD.at > CAST(strftime('%s', 'now') AS REAL) - 86400
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER delivery_end_is_audited AFTER UPDATE OF finished_at ON message
WHEN NEW.sink = 'webhook' AND NEW.finished_at IS NOT NULL AND OLD.finished_at IS NULL
BEGIN
    INSERT INTO audit (at, action, webhook_id, actor, details)
    VALUES (
        NEW.finished_at, 'delivery.' || NEW.status, NEW.destination, 'gateway',
        json_object('delivery_id', NEW.id, 'event_id', NEW.event_id, 'event', NEW.kind,
            'job_id', NEW.job_id, 'attempts', NEW.attempt)
    );
END;

CREATE TRIGGER delivery_that_came_ended_is_audited AFTER INSERT ON message
WHEN NEW.sink = 'webhook' AND NEW.finished_at IS NOT NULL
BEGIN
    INSERT INTO audit (at, action, webhook_id, actor, details)
    VALUES (
        NEW.finished_at, 'delivery.' || NEW.status, NEW.destination, 'gateway',
        json_object('delivery_id', NEW.id, 'event_id', NEW.event_id, 'event', NEW.kind,
            'job_id', NEW.job_id, 'attempts', NEW.attempt)
    );
END;

ALTER TABLE webhook ADD COLUMN failing_since REAL;
ALTER TABLE webhook ADD COLUMN exhausted_count INTEGER NOT NULL DEFAULT 0;

-- `bodiless`: its payload has been dropped, so that the next look passes over it.
ALTER TABLE message ADD COLUMN bodiless INTEGER NOT NULL DEFAULT 0;
DROP INDEX message_finished;
CREATE INDEX message_finished ON message (bodiless, finished_at) WHERE finished_at IS NOT NULL;

PRAGMA user_version = 2;
COMMIT;
