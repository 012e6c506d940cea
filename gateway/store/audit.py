"""What the gateway asks of the audit log; errors are as of `gateway.store`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.audit import AuditEntry


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which lines a page of the audit log shows, newest first; None means any.

    `action` is exact, or a family such as `webhook.*`. `cursor` is opaque.
    """

    webhook_id: str | None = None
    action: str | None = None
    since: float | None = None
    until: float | None = None
    cursor: str | None = None
    limit: int = 50


class AuditLog(Protocol):
    """What was done to webhooks, and how deliveries ended; lines are added, never changed."""

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """Add lines that belong to no change of a webhook."""
        ...

    async def list(self, query: AuditQuery) -> tuple[Sequence[AuditEntry], str | None]:
        """A page of lines and the next page's cursor."""
        ...

    async def prune(self, before: float) -> int:
        """Delete lines from before; how many. The last day's are refused to any caller."""
        ...
