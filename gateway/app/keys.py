"""The store of API keys: behind the admin listener, and opened alone for the command line."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.app.front import Front
from gateway.app.store import open_key_store
from gateway.policy.key_issuer import KeyIssuer
from gateway.settings.check_policy import known_scopes
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet
from gateway.store.key import KeyStore
from gateway.web.keys import KeyApi


def key_api(store: KeyStore, front: Front, now: Callable[[], float]) -> KeyApi:
    """What the admin listener answers under `/keys`."""
    issuer = KeyIssuer(
        store,
        scopes=lambda: known_scopes(front.policies.auth),
        tiers=lambda: front.policies.rate_limits.tiers,
        changed=front.keys.refresh_quietly,
        now=now,
        token=secrets.token_bytes,
    )
    return KeyApi(issuer, store, front.keys, now)


@asynccontextmanager
async def open_keys(
    settings: Settings, policies: PolicySet
) -> AsyncIterator[tuple[KeyIssuer, KeyStore]]:
    """The store of keys by itself, while no gateway need run.

    Raises SettingsError for a store that cannot be used, as one that a running gateway has.
    """
    async with open_key_store(settings) as store:
        issuer = KeyIssuer(
            store,
            scopes=lambda: known_scopes(policies.auth),
            tiers=lambda: policies.rate_limits.tiers,
            changed=_nobody,
            now=time.time,
            token=secrets.token_bytes,
        )
        yield issuer, store


async def _nobody() -> None:
    """This process has no copy; gateways on a shared store hear of the change from it."""
