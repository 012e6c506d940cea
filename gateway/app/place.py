"""Where creations take their places: in this process, or in the store that replicas share."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial

from gateway.core.admission import Bounds
from gateway.job.tracker import Tracker
from gateway.policy.place import LocalPlaces
from gateway.policy.shared_place import Leases, SharedPlaces
from gateway.settings.model import Settings
from gateway.store.place import PlaceStore
from gateway.telemetry.metric import Metrics


def open_places(
    settings: Settings,
    store: PlaceStore | None,
    tracker: Tracker,
    *,
    creation_lease_seconds: float,
    metrics: Metrics,
    now: Callable[[], float],
) -> LocalPlaces | SharedPlaces:
    """Places beside what the tracker knows; a store is there where replicas share an upstream."""
    bound = settings.jobs.admission
    bounds = Bounds(bound.max_concurrent, bound.max_per_owner, bound.max_per_key)
    local = LocalPlaces(bounds, tracker)
    if store is None:
        tracker.listeners.append(local.noted)
        return local
    shared = SharedPlaces(
        store,
        local,
        tracker,
        leases=Leases(creation=creation_lease_seconds, job=settings.jobs.watch.lease),
        on_store_error=bound.on_store_error,
        metrics=metrics,
        now=now,
        token=partial(secrets.token_hex, 8),
    )
    tracker.listeners.append(shared.noted)
    tracker.listeners_elsewhere.append(shared.noted_elsewhere)
    return shared
