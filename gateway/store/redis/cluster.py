"""Which node of a Cluster holds which slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.crc import key_slot

from gateway.store.redis.endpoint import Address
from gateway.store.redis.failure import Lost

SLOTS = 16_384


class SlotMap:
    """The primaries by slot, as a node last told; a MOVED corrects one slot at once."""

    def __init__(self) -> None:
        self._nodes: list[Address | None] = [None] * SLOTS

    def node(self, key: bytes) -> Address | None:
        """The primary that holds the key's slot; None when none is known to."""
        return self._nodes[key_slot(key)]

    def primaries(self) -> Sequence[Address]:
        """Every primary once, in the order of their slots."""
        return [node for node in dict.fromkeys(self._nodes) if node is not None]

    def move(self, slot: int, node: Address) -> None:
        """A node said that another one has this slot."""
        if 0 <= slot < SLOTS:
            self._nodes[slot] = node

    def replace(self, ranges: Any, told_by: Address) -> None:
        """Take the reply to CLUSTER SLOTS; a node without a name is the one that `told_by` is.

        Raises `Lost` for a reply that is none.
        """
        nodes: list[Address | None] = [None] * SLOTS
        try:
            for first, last, (host, port, *_), *_ in ranges:
                address = (host.decode() if host else told_by[0], int(port))
                nodes[first : last + 1] = [address] * (last + 1 - first)
        except (TypeError, ValueError, AttributeError) as error:
            raise Lost("its list of slots cannot be read") from error
        self._nodes = nodes


def redirect(message: str, told_by: Address) -> tuple[int, Address]:
    """The slot and node of a `MOVED 3999 127.0.0.1:6381` or `ASK …`; raises `Lost` for no such."""
    try:
        _, slot, target = message.split(" ", 2)
        host, _, port = target.rpartition(":")
        return int(slot), (host.strip("[]") or told_by[0], int(port))
    except ValueError as error:
        raise Lost(f"its redirection cannot be read: {message}") from error
