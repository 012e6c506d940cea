"""The keys of the store, in memory: what a request is looked up in."""

from __future__ import annotations

from collections.abc import MutableMapping

from gateway.core.credential import Key


class KeySource:
    """Active keys by hash, and when each was last used (epoch seconds), whatever file it is from.

    It outlives the policy files; whoever loads keys changes `by_hash` in place.
    """

    def __init__(self) -> None:
        self.by_hash: MutableMapping[str, Key] = {}
        self.used: dict[str, float] = {}
