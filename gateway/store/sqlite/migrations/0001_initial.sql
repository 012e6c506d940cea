-- Jobs with their timelines, webhooks, and the outbox with its log of attempts.
-- Times are epoch seconds. `claimable_at` says when a row may be claimed next: when its lease ends,
-- else when it is due; NULL when never. It is computed, so that no statement can let it go stale.
BEGIN IMMEDIATE;

-- `due_at` is NULL once the job has ended. `document` holds every field of the job, as JSON; the
-- columns beside it exist to be searched.
CREATE TABLE job (
    id TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    subject TEXT,
    upstream TEXT NOT NULL,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at REAL NOT NULL,
    finished_at REAL,
    due_at REAL,
    lease_until REAL,
    fence INTEGER NOT NULL DEFAULT 0,
    document BLOB NOT NULL,
    claimable_at REAL GENERATED ALWAYS AS (
        CASE
            WHEN due_at IS NULL THEN NULL
            WHEN lease_until IS NOT NULL THEN lease_until
            ELSE due_at
        END
    ) VIRTUAL
) STRICT;

CREATE INDEX job_claimable ON job (claimable_at) WHERE claimable_at IS NOT NULL;
CREATE INDEX job_claimable_of_upstream ON job (upstream, claimable_at)
    WHERE claimable_at IS NOT NULL;
CREATE INDEX job_unfinished ON job (created_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX job_state ON job (state);
-- State and subject stand last: a page's filters are decided without touching the rows passed over.
CREATE INDEX job_history ON job (created_at, id, state, subject);
CREATE INDEX job_history_of_owner ON job (owner, created_at, id, state, subject);
CREATE INDEX job_subject ON job (subject, created_at, id) WHERE subject IS NOT NULL;

CREATE TABLE event (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    type TEXT NOT NULL,
    at REAL NOT NULL,
    event_id TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (job_id, sequence)
) STRICT;

-- `held`: an earlier message of the same destination and job goes first. `tried`: an attempt has
-- been settled. `outdated`: a later message supersedes it, so that it is not attempted again.
-- `finished_at` is set when no attempt will follow.
CREATE TABLE message (
    id TEXT NOT NULL PRIMARY KEY,
    sink TEXT NOT NULL,
    destination TEXT NOT NULL,
    kind TEXT NOT NULL,
    event_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    created_at REAL NOT NULL,
    due_at REAL NOT NULL,
    replaceable INTEGER NOT NULL,
    supersedes INTEGER NOT NULL,
    strict_order INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    status TEXT NOT NULL,
    request_id TEXT,
    traceparent TEXT,
    held INTEGER NOT NULL DEFAULT 0,
    tried INTEGER NOT NULL DEFAULT 0,
    outdated INTEGER NOT NULL DEFAULT 0,
    lease_until REAL,
    fence INTEGER NOT NULL DEFAULT 0,
    finished_at REAL,
    claimable_at REAL GENERATED ALWAYS AS (
        CASE
            WHEN finished_at IS NOT NULL THEN NULL
            WHEN lease_until IS NOT NULL THEN lease_until
            WHEN held THEN NULL
            ELSE due_at
        END
    ) VIRTUAL
) STRICT;

CREATE INDEX message_claimable ON message (sink, destination, claimable_at)
    WHERE claimable_at IS NOT NULL;
CREATE INDEX message_order ON message (destination, job_id, sequence) WHERE finished_at IS NULL;
CREATE INDEX message_outdated ON message (sink, lease_until)
    WHERE outdated AND finished_at IS NULL;
CREATE INDEX message_waiting ON message (sink, status, created_at) WHERE finished_at IS NULL;
CREATE INDEX message_finished ON message (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX message_log ON message (destination, created_at, id);

-- Apart from the message: its row is rewritten with every attempt, these bytes never change.
CREATE TABLE payload (
    message_id TEXT NOT NULL PRIMARY KEY REFERENCES message (id) ON DELETE CASCADE,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE attempt (
    message_id TEXT NOT NULL REFERENCES message (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    started_at REAL NOT NULL,
    duration_seconds REAL NOT NULL,
    status_code INTEGER,
    error_kind TEXT,
    detail TEXT NOT NULL,
    response_excerpt TEXT NOT NULL,
    PRIMARY KEY (message_id, number)
) STRICT, WITHOUT ROWID;

-- When each destination's first message is claimable: a claim looks at destinations that have
-- something to send, however many messages wait behind a slow one. The triggers keep it true.
CREATE TABLE queue (
    sink TEXT NOT NULL,
    destination TEXT NOT NULL,
    claimable_at REAL NOT NULL,
    PRIMARY KEY (sink, destination)
) STRICT, WITHOUT ROWID;

CREATE INDEX queue_claimable ON queue (sink, claimable_at);

CREATE TRIGGER message_joins_queue AFTER INSERT ON message
WHEN NEW.claimable_at IS NOT NULL
BEGIN
    INSERT INTO queue (sink, destination, claimable_at)
    VALUES (NEW.sink, NEW.destination, NEW.claimable_at)
    ON CONFLICT (sink, destination) DO UPDATE SET claimable_at = excluded.claimable_at
    WHERE excluded.claimable_at < queue.claimable_at;
END;

CREATE TRIGGER message_moves_in_queue AFTER UPDATE ON message
WHEN NEW.claimable_at IS NOT OLD.claimable_at
BEGIN
    DELETE FROM queue WHERE sink = NEW.sink AND destination = NEW.destination;
    INSERT INTO queue (sink, destination, claimable_at)
    SELECT NEW.sink, NEW.destination, message.claimable_at
    FROM message
    WHERE message.sink = NEW.sink AND message.destination = NEW.destination
        AND message.claimable_at IS NOT NULL
    ORDER BY message.claimable_at
    LIMIT 1;
END;

-- What the gateway itself changes stands in columns; `document` holds every field, these included,
-- as they were when the webhook was last written as a whole.
CREATE TABLE webhook (
    id TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    job_id TEXT,
    all_owners INTEGER NOT NULL,
    status TEXT NOT NULL,
    disabled_reason TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    revision INTEGER NOT NULL,
    consecutive_failures INTEGER NOT NULL,
    last_success_at REAL,
    document BLOB NOT NULL
) STRICT;

CREATE INDEX webhook_list ON webhook (created_at, id);
CREATE INDEX webhook_list_of_owner ON webhook (owner, created_at, id);
CREATE INDEX webhook_general ON webhook (owner) WHERE job_id IS NULL;
CREATE INDEX webhook_of_job ON webhook (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX webhook_of_all_owners ON webhook (all_owners) WHERE all_owners AND job_id IS NULL;

PRAGMA application_id = 1197560919; -- "GaTW": tells our file from another program's
PRAGMA user_version = 1;
COMMIT;
