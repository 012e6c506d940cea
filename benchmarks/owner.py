"""As many owners as receivers, each with a key of its own, and settings that know them."""

from __future__ import annotations

from typing import Any

from benchmarks.receivers import COUNT
from gateway.core.credential import format_key, hash_key
from tests.support.system import SECRET_KEY

KEYS = tuple(format_key(f"owner-{number:02}-of-many-test-key".encode()) for number in range(COUNT))
MAX_RETRIES = 10
SCOPES = ("jobs:read", "jobs:write", "webhooks")


def settings(redis_url: str | None) -> dict[str, Any]:
    """What a gateway under kill -9 and outages runs with, the leases as short as they go.

    A claim of a gateway that died ends after 0.5 + 4 + 6 s. Without a Redis there is SQLite.
    """
    found: dict[str, Any] = {
        "jobs": {"watch": {"lease": "3s", "lost_after": "10s"}},
        "webhooks": {
            "timeout": "500ms",
            "max_timeout": "500ms",
            "lease_margin": "6s",
            "max_retries": MAX_RETRIES,
            "retry_delays": ["100ms", "200ms", "400ms", *["1s"] * (MAX_RETRIES - 3)],
        },
        "policies": {
            "auth": {
                "entries": [
                    {
                        "id": f"key-{number}",
                        "owner": f"owner-{number}",
                        "scopes": list(SCOPES),
                        "hash": hash_key(key),
                    }
                    for number, key in enumerate(KEYS)
                ]
            }
        },
        "environment": {"WEBHOOK_SECRET_KEY": SECRET_KEY},
    }
    if redis_url is not None:
        found |= {
            "store": {"kind": "redis"},
            "redis": {"url": "${REDIS_URL}"},
            "upstream": {"shared": True},
        }
        found["environment"]["REDIS_URL"] = redis_url
    return found
