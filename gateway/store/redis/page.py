"""Pages over partitions: each is walked in its own order, and the walks are merged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.store.redis.layout import Partition

BUDGET = 500  # members that one script looks at: what keeps it short


@dataclass(frozen=True, slots=True)
class Position:
    """After the item with this time and id; no id means from the first."""

    at: float = 0.0
    id: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """One item of a page where it stands."""

    at: float
    id: str
    item: Any


Walk = Callable[[Partition, Position, int], Awaitable[Any]]


async def newest_first(
    partitions: Sequence[Partition], walk: Walk, start: Position, limit: int
) -> Sequence[Found]:
    """Up to `limit` items, newest first, those of one time by id, the highest first.

    `walk` runs a script that ends in `walk` of lib_walk.lua.
    """
    parts = await asyncio.gather(*(_all_of(each, walk, start, limit) for each in partitions))
    merged = [found for part in parts for found in part]
    merged.sort(key=lambda found: (found.at, found.id), reverse=True)
    return merged[:limit]


async def _all_of(
    partition: Partition, walk: Walk, position: Position, limit: int
) -> Sequence[Found]:
    items: list[Found] = []
    while len(items) < limit:
        is_end, at, name, *found = await walk(partition, position, limit - len(items))
        items += [Found(float(each[0]), each[1].decode(), each[2]) for each in found]
        if is_end:
            break
        position = Position(float(at), name.decode())
    return items
