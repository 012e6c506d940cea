"""What a request to create or rotate a key says, read and judged."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

from gateway.core.violation import Violations, json_type
from gateway.settings.base import parse_duration

DEFAULT_SCOPES = ("jobs:read", "jobs:write", "webhooks")
DEFAULT_OVERLAP_SECONDS = 86_400.0
_MAX_OVERLAP_SECONDS = 366 * 86_400.0
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_TEXT = 200
_MAX_LIST = 64


class KeyInput:
    """Reads a document member by member; what is wrong collects in `violations`.

    `known` are the members it may have, `scopes` and `tiers` what the policy files know.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        known: Collection[str],
        scopes: Collection[str],
        tiers: Collection[str],
        now: float,
    ) -> None:
        self.violations = Violations()
        self._document = document
        self._known_scopes = scopes
        self._known_tiers = tiers
        self._now = now
        for name in document:
            if name not in known:
                self.violations.add_unknown(name, known)

    def key_id(self) -> str | None:
        """The id asked for; None: a random one."""
        value = self._document.get("id")
        if value is None or (isinstance(value, str) and _ID.fullmatch(value)):
            return value
        self.violations.add("must be 1 to 64 letters, digits, dots, dashes and underscores", "id")
        return None

    def text(self, name: str, *, required: bool = False) -> str:
        """A short text; the empty one when it is not there."""
        value = self._document.get(name)
        if value is None and not required:
            return ""
        if isinstance(value, str) and value.strip() and len(value) <= _MAX_TEXT:
            if value.isprintable():
                return value
            self.violations.add("must hold no control characters", name)
        elif value is None:
            self.violations.add("is required", name)
        elif isinstance(value, str):
            self.violations.add(f"must hold 1 to {_MAX_TEXT} characters", name)
        else:
            self.violations.add(f"must be a string, not {json_type(value)}", name)
        return ""

    def scopes(self) -> list[str]:
        """What the key may do."""
        scopes = self._strings("scopes", list(DEFAULT_SCOPES))
        for index, scope in enumerate(scopes):
            if scope not in self._known_scopes:
                known = ", ".join(sorted(self._known_scopes))
                self.violations.add(f"is not a known scope; known are {known}", "scopes", index)
        return scopes

    def tier(self) -> str | None:
        """The tier of its limits."""
        value = self._document.get("tier")
        if value is None or (isinstance(value, str) and value in self._known_tiers):
            return value
        known = ", ".join(sorted(self._known_tiers)) or "none"
        self.violations.add(f"is not a tier of the rate limits; known are {known}", "tier")
        return None

    def networks(self) -> tuple[str, ...]:
        """The ranges it may be used from."""
        networks = self._strings("networks", [])
        for index, network in enumerate(networks):
            try:
                ip_network(network)
            except ValueError:
                detail = "must be an address range like 10.0.0.0/8, its host bits not set"
                self.violations.add(detail, "networks", index)
        return tuple(networks)

    def expires_at(self) -> float | None:
        """When it ends, in epoch seconds; None: never."""
        value = self._document.get("expires_at")
        if value is None:
            return None
        try:
            moment = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            moment = None
        if moment is None or moment.tzinfo is None:
            detail = "must be a time with its zone, like 2027-01-31T00:00:00Z"
            self.violations.add(detail, "expires_at")
            return None
        if moment.timestamp() <= self._now:
            now = datetime.fromtimestamp(self._now, UTC).isoformat(timespec="seconds")
            self.violations.add(f"must be later than now, {now}", "expires_at")
        return moment.timestamp()

    def overlap(self) -> float:
        """How long a key outlives its rotation, in seconds."""
        value = self._document.get("overlap", DEFAULT_OVERLAP_SECONDS)
        try:
            seconds = float(parse_duration(value))
        except ValueError as error:
            self.violations.add(f"is no duration: {error}", "overlap")
            return DEFAULT_OVERLAP_SECONDS
        if not 0 <= seconds <= _MAX_OVERLAP_SECONDS:
            self.violations.add("must be from 0s to 366d", "overlap")
        return seconds

    def _strings(self, name: str, default: list[str]) -> list[str]:
        value = self._document.get(name)
        if value is None:
            return default
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self.violations.add("must be an array of strings", name)
        elif len(value) > _MAX_LIST:
            self.violations.add(f"must have at most {_MAX_LIST} items", name)
        else:
            return value
        return []
