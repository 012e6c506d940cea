"""What operators do with Convex's dead letters: behind the admin listener, and over the store."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.app.front import Front
from gateway.app.store import Stores, open_stores
from gateway.delivery.dead_letter import DeadLetters
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet
from gateway.web.admin_key import AdminKey
from gateway.web.convex_admin import ConvexAdmin, ConvexDesk


def convex_admin(
    stores: Stores, front: Front, now: Callable[[], float], wake: Callable[[], None]
) -> ConvexAdmin:
    """What the admin listener answers under `/convex`."""
    desk = ConvexDesk(DeadLetters(stores.outbox, now, wake))
    return ConvexAdmin(desk, AdminKey(front.keys, now))


@asynccontextmanager
async def open_convex(settings: Settings, policies: PolicySet) -> AsyncIterator[ConvexDesk]:
    """The desk over the store by itself: what it enqueues goes out when a gateway runs.

    Raises SettingsError for a store that cannot be used, as one that a running gateway has.
    """
    async with open_stores(settings, policies) as stores:
        yield ConvexDesk(DeadLetters(stores.outbox, time.time, _nobody))


def _nobody() -> None:
    """No dispatcher runs beside this."""
