"""Rules of `workers`: what several processes need that one does not."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.settings.model import Settings
from gateway.settings.problem import Problem

_ALONE = (
    "more than one share jobs, limits and keys in Redis: set store.kind: redis and redis.url; a "
    "SQLite file belongs to one process, so without Redis set workers: 1"
)
_KEYS = "must not be sqlite beside workers: a file belongs to one process; leave it out"


def workers(settings: Settings) -> Iterator[Problem]:
    """Every rule that several workers break."""
    if settings.workers == 1:
        return
    if settings.store.kind != "redis":
        yield ("workers",), _ALONE
    elif settings.store.keys == "sqlite":
        yield ("store", "keys"), _KEYS
