-- Without the idempotency keys: a creation tried again by its key is then a new one. The copy of the
-- file that is made before has them.
BEGIN IMMEDIATE;

DROP TABLE idempotency;

PRAGMA user_version = 3;
COMMIT;
