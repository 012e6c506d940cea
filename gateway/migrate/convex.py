"""Migrations of a Convex deployment, driven from outside: a batch a call, resumable at any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway.core.error import SettingsError
from gateway.delivery.convex import (
    ConvexClient,
    ConvexFunctionError,
    ConvexNotDeployed,
    ConvexUnavailable,
)
from gateway.migrate.contract import Contract, parse_deployed
from gateway.migrate.validator import Validator, violations

PAGE = 250
RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)  # while the deployment is away
_SYSTEM_FIELDS = ("_id", "_creationTime")
_BACKUPS = "migrationBackups"

Direction = Literal["up", "down"]
Report = Callable[["Progress"], None]


class MigrationFailed(Exception):
    """A batch could not be migrated; the text names the document and what to do."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a migration stands: its last direction, `running`, `completed` or `failed`."""

    direction: Direction
    state: str
    processed: int
    changed: int
    confirmed: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration of the deployed code; `run` None when it was never begun."""

    name: str
    version: int
    table: str
    description: str
    run: Run | None

    @property
    def applied(self) -> bool:
        """Whether it is wholly applied."""
        return self.run is not None and (self.run.direction, self.run.state) == ("up", "completed")

    @property
    def untouched(self) -> bool:
        """Whether no document carries it: never begun, or wholly rolled back."""
        return self.run is None or (self.run.direction, self.run.state) == ("down", "completed")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run came; `total` is how many documents there were at its start."""

    migration: Migration
    direction: Direction
    processed: int
    changed: int
    total: int
    done: bool


@dataclass(frozen=True, slots=True)
class Invalid:
    """A document that the schema would refuse, and why."""

    table: str
    id: str
    reasons: tuple[str, ...]


class ConvexMigrations:
    """The migrations of one deployment. Raises ConvexError for what the deployment answers.

    `sleep` waits between tries of a deployment that is away: a batch whose reply was lost has been
    counted there, and the next call goes on after it.
    """

    def __init__(
        self,
        client: ConvexClient,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._sleep = sleep

    async def status(self) -> Sequence[Migration]:
        """Every migration of the deployed code, oldest first."""
        rows = await self._call("query", "control:status", {})
        return [_migration(row) for row in rows]

    async def contract(self) -> Contract:
        """What is deployed."""
        return parse_deployed(await self._call("query", "inspect:contract", {}))

    async def run(
        self,
        migration: Migration,
        direction: Direction,
        report: Report,
        *,
        batch_size: int,
        dry_run: bool = False,
    ) -> Progress:
        """Run one migration to its end; `report` hears of each batch.

        Raises MigrationFailed when a document cannot be migrated: what went before stays done.
        """
        total = await self._total(migration, direction)
        step = self._rehearse if dry_run else self._step
        processed = changed = 0
        cursor: str | None = None
        while True:
            answer = await step(migration, direction, batch_size, cursor)
            if error := answer.get("error"):
                raise MigrationFailed(_advice(migration, direction, error))
            # A rehearsal undoes each batch, and its counts with it.
            before = (processed, changed) if dry_run else (0, 0)
            processed = before[0] + int(answer["processed"])
            changed = before[1] + int(answer["changed"])
            done = answer["state"] == "completed"
            progress = Progress(migration, direction, processed, changed, total, done)
            report(progress)
            if done:
                return progress
            cursor = answer["cursor"]

    async def confirm(self, name: str, *, batch_size: int) -> int:
        """Forget what an applied migration overwrote; how many documents' backups that were."""
        forgotten = 0
        while True:
            arguments = {"name": name, "batchSize": batch_size}
            answer = await self._call("mutation", "control:confirm", arguments)
            forgotten += int(answer["forgotten"])
            if answer["isDone"]:
                return forgotten

    async def invalid(self, table: str, document: Validator) -> AsyncIterator[Invalid | int]:
        """Each document of a table that a schema would refuse; an int for each page's size."""
        async for page in self._pages("inspect:documents", table):
            for each in page["page"]:
                fields = {k: value for k, value in each.items() if k not in _SYSTEM_FIELDS}
                if reasons := tuple(violations(document, fields)):
                    yield Invalid(table, each["_id"], reasons)
            yield len(page["page"])

    async def _step(
        self, migration: Migration, direction: Direction, batch_size: int, _cursor: str | None
    ) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = await self._call(
            "mutation", "control:step", _step_arguments(migration, direction, batch_size)
        )
        return answer

    async def _rehearse(
        self, migration: Migration, direction: Direction, batch_size: int, cursor: str | None
    ) -> Mapping[str, Any]:
        arguments = _step_arguments(migration, direction, batch_size)
        arguments |= {"dryRun": True, "cursor": cursor}
        try:
            await self._call("mutation", "control:step", arguments)
        except ConvexFunctionError as error:
            if isinstance(error.data, dict) and error.data.get("code") == "DRY_RUN":
                answer: Mapping[str, Any] = error.data["progress"]
                return answer
            raise
        raise MigrationFailed("The deployment did not undo a dry run; deploy convex/ again.")

    async def _total(self, migration: Migration, direction: Direction) -> int:
        """How many documents a run walks: all of the table, or what was kept of them."""
        if direction == "up":
            pages = self._pages("inspect:count", migration.table)
            return sum([int(page["number"]) async for page in pages])
        pages = self._pages("inspect:count", _BACKUPS, migration=migration.name)
        done = migration.run.processed if migration.run and migration.run.direction == "down" else 0
        return done + sum([int(page["number"]) async for page in pages])

    async def _pages(
        self, function: str, table: str, **selection: str
    ) -> AsyncIterator[Mapping[str, Any]]:
        cursor: str | None = None
        while True:
            page_options = {"numItems": PAGE, "cursor": cursor}
            arguments = {"table": table, **selection, "paginationOpts": page_options}
            page = await self._call("query", function, arguments)
            yield page
            if page["isDone"]:
                return
            cursor = page["continueCursor"]

    async def _call(
        self, kind: Literal["query", "mutation"], function: str, arguments: Mapping[str, Any]
    ) -> Any:
        delays = iter(RETRY_SECONDS)
        while True:
            try:
                return await self._client.call(kind, f"migrations/{function}", arguments)
            except ConvexNotDeployed as error:
                problem = f"the deployment has no migrations/{function}: deploy convex/ first"
                raise SettingsError([f"{problem} ({error.detail})"]) from error
            except ConvexUnavailable:
                delay = next(delays, None)
                if delay is None:
                    raise
                await self._sleep(delay)


def _migration(row: Mapping[str, Any]) -> Migration:
    run = row["run"]
    return Migration(
        row["name"],
        int(row["version"]),
        row["table"],
        row["description"],
        None
        if run is None
        else Run(
            run["direction"],
            run["state"],
            int(run["processed"]),
            int(run["changed"]),
            "confirmedAt" in run,
            run.get("error"),
        ),
    )


def _step_arguments(migration: Migration, direction: Direction, batch_size: int) -> dict[str, Any]:
    return {
        "name": migration.name,
        "direction": direction,
        "batchSize": batch_size,
        "dryRun": False,
    }


def _advice(migration: Migration, direction: Direction, error: str) -> str:
    back = "" if direction == "down" else "; `gateway migrate down convex` takes back what was done"
    return (
        f"{migration.name} stopped at a document, and undid its batch: {error}. "
        f"Mend the document and run it again: it goes on where it stood{back}."
    )
