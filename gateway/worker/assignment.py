"""Who accepts the connections of which slot: its member, and while there is none another.

A listening socket outlives its worker in the parent, so the kernel goes on giving it connections;
without somebody else they would wait there until the worker is replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.worker.member import Member

SLOTS = "/slots"


class Assignment:
    """Tells the workers of a gateway of so many `slots`, each when it has others than before."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._told: dict[Member, tuple[int, ...]] = {}

    async def share_out(self, answering: Sequence[Member]) -> None:
        """Have every slot's connections accepted; who could not be told is told the next time."""
        shares = share_out(self._slots, answering)
        # A member accepts from its own slot without being told.
        self._told = {each: self._told.get(each, (each.slot,)) for each in answering}
        await asyncio.gather(
            *(
                self._tell(member, slots)
                for member, slots in shares.items()
                if self._told[member] != slots
            )
        )

    async def _tell(self, member: Member, slots: tuple[int, ...]) -> None:
        if await member.tell("PUT", SLOTS, slots):
            self._told[member] = slots


def share_out(slots: int, answering: Sequence[Member]) -> dict[Member, tuple[int, ...]]:
    """Which slots each of them accepts connections of: its own, and a part of those without one."""
    shares: dict[Member, list[int]] = {member: [member.slot] for member in answering}
    held = {member.slot for member in answering}
    for number, slot in enumerate(each for each in range(slots) if each not in held):
        if answering:
            shares[answering[number % len(answering)]].append(slot)
    return {member: tuple(sorted(found)) for member, found in shares.items()}
