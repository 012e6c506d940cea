-- Without the keys that were made at runtime; the copy of the file that is made before has them.
BEGIN IMMEDIATE;

DROP TABLE api_key_use;
DROP TABLE api_key;

PRAGMA user_version = 2;
COMMIT;
