"""What operators do with jobs: behind the admin listener, and over the store alone."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.app.front import Front
from gateway.app.store import Stores, open_stores
from gateway.delivery.replay import Replay
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet
from gateway.web.admin_key import AdminKey
from gateway.web.job_admin import JobAdmin, JobDesk


def job_desk(stores: Stores, now: Callable[[], float], wake: Callable[[], None]) -> JobDesk:
    """The desk over these stores; `wake` tells the dispatcher, if there is one."""
    replay = Replay(stores.outbox, stores.jobs, now, wake)
    return JobDesk(stores.jobs, stores.webhooks, stores.outbox, stores.audit, replay)


def job_admin(
    stores: Stores, front: Front, now: Callable[[], float], wake: Callable[[], None]
) -> JobAdmin:
    """What the admin listener answers under `/jobs`."""
    return JobAdmin(job_desk(stores, now, wake), AdminKey(front.keys, now))


@asynccontextmanager
async def open_jobs(settings: Settings, policies: PolicySet) -> AsyncIterator[JobDesk]:
    """The desk over the store by itself: what it enqueues goes out when a gateway runs.

    Raises SettingsError for a store that cannot be used, as one that a running gateway has.
    """
    async with open_stores(settings, policies) as stores:
        yield job_desk(stores, time.time, _nobody)


def _nobody() -> None:
    """No dispatcher runs beside this."""
