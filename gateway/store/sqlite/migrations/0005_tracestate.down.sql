-- Receivers are told of the trace without what other vendors say of it.
BEGIN IMMEDIATE;

ALTER TABLE message DROP COLUMN tracestate;

PRAGMA user_version = 4;
COMMIT;
