-- API keys by their hashes. `changed` is the generation of the key's last change; the newest of all
-- is the store's. `document` holds what nothing searches, as JSON.
BEGIN IMMEDIATE;

CREATE TABLE api_key (
    id TEXT NOT NULL PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL,
    changed INTEGER NOT NULL,
    document BLOB NOT NULL
) STRICT;

CREATE INDEX api_key_changed ON api_key (changed);
CREATE INDEX api_key_list ON api_key (created_at, id);
CREATE INDEX api_key_list_of_owner ON api_key (owner, created_at, id);

-- Apart from the keys: those of the policy files are used too, and a use is no change of a key.
CREATE TABLE api_key_use (
    key_id TEXT NOT NULL PRIMARY KEY,
    last_used_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 3;
COMMIT;
