-- Without the audit log; the copy of the file that is made before has it.
BEGIN IMMEDIATE;

DROP TRIGGER delivery_that_came_ended_is_audited;
DROP TRIGGER delivery_end_is_audited;
DROP TABLE audit;

ALTER TABLE webhook DROP COLUMN exhausted_count;
ALTER TABLE webhook DROP COLUMN failing_since;

DROP INDEX message_finished;
ALTER TABLE message DROP COLUMN bodiless;
CREATE INDEX message_finished ON message (finished_at) WHERE finished_at IS NOT NULL;

PRAGMA user_version = 1;
COMMIT;
