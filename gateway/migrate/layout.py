"""The layouts of the gateway's own stores, whichever the settings name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from gateway.settings.model import Settings
from gateway.store.redis.client import RedisClient
from gateway.store.redis.migration import RedisLayout
from gateway.store.sqlite.layout import SqliteLayout


class Layout(Protocol):
    """Numbered steps of one store. Raises SettingsError, or StoreUnavailable."""

    @property
    def where(self) -> str:
        """What is migrated, for people."""
        ...

    @property
    def newest(self) -> int:
        """The number of this release's last step."""
        ...

    async def stands_at(self) -> int:
        """The number of the last step applied, 0 where nothing is yet. Changes nothing."""
        ...

    async def up(self) -> str | None:
        """Apply what is missing; what changed and what was kept, None when nothing was missing."""
        ...

    async def down(self) -> str:
        """Undo the last step; what changed and what was kept."""
        ...


@asynccontextmanager
async def open_layouts(settings: Settings) -> AsyncIterator[Sequence[Layout]]:
    """The stores of these settings; the last is where the jobs are."""
    file = _File(SqliteLayout(Path(settings.store.sqlite.path)))
    if settings.store.kind != "redis" or settings.redis is None:
        yield [file]
        return
    shared = RedisLayout(RedisClient(settings.redis))
    try:
        yield [file, shared]
    finally:
        await shared.close()


class _File:
    """A file's layout, off the loop."""

    def __init__(self, layout: SqliteLayout) -> None:
        self._layout = layout
        self.where = layout.where
        self.newest = layout.newest

    async def stands_at(self) -> int:
        return await asyncio.to_thread(self._layout.stands_at)

    async def up(self) -> str | None:
        return await asyncio.to_thread(self._layout.up)

    async def down(self) -> str:
        return await asyncio.to_thread(self._layout.down)
