"""The layout of a namespace, changed apart from running gateways: `gateway migrate up store`.

A step works in batches and may be begun again wherever it died, since the layout's number is set
only once it is through. There is no copy, as there is of a file: a step that drops something has no
way back but a snapshot of the server (BGSAVE).
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.core.error import SettingsError
from gateway.store.redis.client import RedisClient
from gateway.store.redis.script import load_script

LEASE_MILLISECONDS = 30_000
_LEASE = load_script("migration_lease")

# Changes what is there, yielding after each batch; what is changed already is passed over.
Change = Callable[[RedisClient], AsyncIterator[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the layout; `up` None: there is nothing to change, `down` None: no way back."""

    number: int
    name: str
    up: Change | None
    down: Change | None = None


STEPS = (Step(1, "initial", None),)


class RedisLayout:
    """One namespace. Every method raises SettingsError, or StoreUnavailable."""

    def __init__(self, client: RedisClient, steps: Sequence[Step] = STEPS) -> None:
        self._client = client
        self._steps = steps
        self._key = client.key("layout")
        self._lease = client.key("migrating")
        self._token = secrets.token_hex(8)

    @property
    def where(self) -> str:
        """What is migrated, for people."""
        return f"Redis {self._client.name}"

    @property
    def newest(self) -> int:
        """The number of this release's last step."""
        return self._steps[-1].number

    async def stands_at(self) -> int:
        """The number of the last step applied; 0 for a namespace without jobs. Changes nothing."""
        found: bytes = await self._client.command("GET", self._key) or b"0"
        if not found.isdigit() or int(found) > self.newest:
            text = found.decode("ascii", "replace")
            problem = f"{self.where}: has layout {text}, and this gateway knows {self.newest}"
            remedy = "run `gateway migrate down store` of the newer one, or use another namespace"
            raise SettingsError([f"{problem}; {remedy}"])
        return int(found)

    async def up(self) -> str | None:
        """Apply what is missing; what changed, None when nothing was missing."""
        before = await self.stands_at()
        missing = [step for step in self._steps if step.number > before]
        if not before or not missing:
            return None  # what is written first has the newest layout
        async with self._alone():
            for step in missing:
                await self._walk(step.up, step.number)
        return f"layout {before} to {self.newest}"

    async def down(self) -> str:
        """Undo the last step; what changed."""
        number = await self.stands_at()
        last = next((step for step in self._steps if step.number == number), None)
        if last is None:
            raise SettingsError([f"{self.where}: holds nothing yet, so nothing is rolled back"])
        if last.down is None:
            problem = f"{self.where}: stands at layout {number} ({last.name})"
            raise SettingsError([f"{problem}, which has no way back but a snapshot from before"])
        async with self._alone():
            await self._walk(last.down, number - 1)
        return f"layout {number} ({last.name}) to {number - 1}"

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _walk(self, change: Change | None, then: int) -> None:
        if change is not None:
            async for _ in change(self._client):
                if not await self._keep(LEASE_MILLISECONDS):
                    raise SettingsError([f"{self.where}: another migration took over"])
        await self._client.command("SET", self._key, then)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Keep other migrations out; one that died does so for half a minute."""
        taken = await self._client.command(
            "SET", self._lease, self._token, "NX", "PX", LEASE_MILLISECONDS
        )
        if taken is None:
            problem = f"{self.where}: is being migrated by another `gateway migrate`"
            raise SettingsError([f"{problem}; if that one died, try again in half a minute"])
        try:
            yield
        finally:
            await self._keep(0)

    async def _keep(self, milliseconds: int) -> bool:
        return bool(await self._client.run(_LEASE, [self._lease], [self._token, milliseconds]))
