"""What the engine's errors mean to whoever called a store."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from gateway.core.error import SettingsError, StoreUnavailable

# Primary result code (the low byte of https://www.sqlite.org/rescode.html) -> how to mend it.
_REMEDIES = {
    sqlite3.SQLITE_FULL: "free space on its volume",
    sqlite3.SQLITE_BUSY: "end the other program that holds the file, a backup or a shell",
    sqlite3.SQLITE_LOCKED: "end the other program that holds the file, a backup or a shell",
    sqlite3.SQLITE_READONLY: "make the file and its directory writable",
    sqlite3.SQLITE_CANTOPEN: "make the file and its directory readable and writable",
    sqlite3.SQLITE_IOERR: "check its volume",
    sqlite3.SQLITE_CORRUPT: "stop the gateway and restore the file from a backup",
    sqlite3.SQLITE_NOTADB: "stop the gateway and restore the file from a backup",
}
# Mistakes in a statement or its values: defects of the gateway, not conditions of the file.
_DEFECTS = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    sqlite3.NotSupportedError,
)


def translate(error: Exception, path: Path) -> Exception:
    """`StoreUnavailable` for an error that the file's condition brought; others unchanged."""
    if isinstance(error, MemoryError):
        return unavailable(path, "out of memory", "give the gateway more memory")
    if not isinstance(error, sqlite3.DatabaseError) or isinstance(error, _DEFECTS):
        return error
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return unavailable(path, str(error), _REMEDIES.get(code, "see the cause"))


def unavailable(path: Path, cause: str, remedy: str) -> StoreUnavailable:
    """The one sentence: what, where, how to mend it."""
    return StoreUnavailable(
        f"The store {path} did not take the operation ({cause}): {remedy}, then repeat the request."
    )


def refusal(path: Path, problem: str) -> SettingsError:
    """Why the gateway does not start with this file, in one sentence."""
    return SettingsError([f"store.sqlite.path: {path} {problem}"])
