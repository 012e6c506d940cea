"""The embedded durable store: one SQLite file, one process.

`Database` owns the file; the stores say what is read and written. Glossary: an operation is
one store call, executed whole or not at all; a group is what one transaction commits; a lease is
the time a claim holds, its fence the number that makes an older claim void.
"""

from gateway.store.sqlite.audit import SqliteAuditLog
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.job import SqliteJobStore
from gateway.store.sqlite.key import SqliteKeyStore
from gateway.store.sqlite.outbox import SqliteOutbox
from gateway.store.sqlite.webhook import SqliteWebhookStore

__all__ = [
    "Database",
    "SqliteAuditLog",
    "SqliteJobStore",
    "SqliteKeyStore",
    "SqliteOutbox",
    "SqliteWebhookStore",
]
