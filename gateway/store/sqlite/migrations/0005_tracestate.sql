-- What other vendors say of the trace that a message belongs to.
BEGIN IMMEDIATE;

ALTER TABLE message ADD COLUMN tracestate TEXT;

PRAGMA user_version = 5;
COMMIT;
