"""What the gateway asks of a store of webhooks; errors are as of `gateway.store`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.audit import AuditEntry
from gateway.core.webhook import Webhook, WebhookStatus


@dataclass(frozen=True, slots=True)
class WebhookQuery:
    """Which webhooks a page shows, oldest first; None means any. `cursor` is opaque.

    Without a `job_id` these are the general ones; with one, the callbacks of that job.
    """

    owner: str | None = None
    job_id: str | None = None
    status: WebhookStatus | None = None
    cursor: str | None = None
    limit: int = 50


class WebhookStore(Protocol):
    """Webhook subscriptions. An `entry` is added to the audit log together with the change."""

    async def add(self, webhook: Webhook, entry: AuditEntry | None = None) -> bool:
        """Insert; False when the id is there already."""
        ...

    async def get(self, webhook_id: str) -> Webhook | None:
        """One webhook."""
        ...

    async def replace(
        self, webhook: Webhook, revision: int, entry: AuditEntry | None = None
    ) -> bool:
        """Store it if the stored revision equals `revision`; False when it changed or is gone.

        What the store counts (`consecutive_failures` and the fields after it) stays as stored, but
        for a disabled webhook that is no longer: its counts of failures begin anew.
        """
        ...

    async def delete(self, webhook_id: str, entry: AuditEntry | None = None) -> bool:
        """Remove; False when there is none."""
        ...

    async def list(self, query: WebhookQuery) -> tuple[Sequence[Webhook], str | None]:
        """A page of webhooks and the next page's cursor."""
        ...

    async def candidates(self, owner: str, job_id: str) -> Sequence[Webhook]:
        """Every active webhook that may want events of this owner's job."""
        ...

    async def count(self, owner: str) -> int:
        """How many an owner has, per-job ones apart."""
        ...

    async def note_outcome(
        self,
        webhook_id: str,
        ok: bool,  # noqa: FBT001 - it is the outcome
        now: float,
        *,
        exhausted: bool = False,
    ) -> Webhook | None:
        """Count a failure, or reset the counts and remember the success; the webhook after that.

        `exhausted`: the failure was the delivery's last attempt. None when the webhook is gone.
        """
        ...

    async def disable(
        self, webhook_id: str, reason: str, now: float, entry: AuditEntry | None = None
    ) -> bool:
        """Disable it, saying why; False when it was not active."""
        ...

    async def prune(self, before: float, now: float) -> int:
        """Delete the callbacks of jobs that ended before, and of none; how many.

        Each leaves a line in the audit log.
        """
        ...
