"""Convex's dead letters: what its functions refused, to be looked at and sent again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.core.error import Conflict, NotFound
from gateway.core.identifier import derived
from gateway.core.outbox import Delivery, DeliveryStatus, Message
from gateway.delivery.convex_sink import DESTINATION, SINK
from gateway.store.outbox import DeliveryQuery, Outbox

_PAGE = 100


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Messages that ended without success; one that was replayed is its replay's business.

    A replay's id derives from the letter's: asked twice, it is sent once. `now` gives epoch
    seconds, `wake` tells the dispatcher. Every method raises StoreUnavailable.
    """

    outbox: Outbox
    now: Callable[[], float]
    wake: Callable[[], None]

    async def page(self, cursor: str | None, limit: int) -> tuple[Sequence[Delivery], str | None]:
        """A page, newest first, and the next one's cursor; it may be short before the last.

        Raises InvalidRequest for a malformed cursor.
        """
        query = DeliveryQuery(
            DESTINATION, status=DeliveryStatus.EXHAUSTED, cursor=cursor, limit=limit
        )
        found, following = await self.outbox.deliveries(query)
        return [each for each in found if not await self._is_replayed(each.message)], following

    async def recent(self, since: float) -> Sequence[Delivery]:
        """Those of the newest page that ended since then (epoch seconds)."""
        found, _ = await self.page(None, _PAGE)
        return [each for each in found if (each.finished_at or 0.0) >= since]

    async def replay(self, message_id: str) -> Message:
        """Send one again. Raises NotFound, and Conflict when its content is no longer kept."""
        delivery = await self.outbox.get(message_id)
        if (
            delivery is None
            or delivery.message.sink != SINK
            or delivery.message.status is not DeliveryStatus.EXHAUSTED
        ):
            raise NotFound(f"There is no dead letter {message_id}.")
        if not delivery.message.body:
            raise Conflict(f"What {message_id} carried is no longer kept.")
        return await self._send(delivery.message)

    async def replay_all(self) -> tuple[int, int]:
        """Send all again, oldest first; how many, and of how many the content is no longer kept."""
        letters: list[Delivery] = []
        cursor: str | None = None
        while True:
            page, cursor = await self.page(cursor, _PAGE)
            letters += page
            if cursor is None:
                break
        sent = lost = 0
        for letter in reversed(letters):
            whole = await self.outbox.get(letter.message.id)
            if whole is None or not whole.message.body:
                lost += 1
                continue
            await self._send(whole.message)
            sent += 1
        return sent, lost

    async def _send(self, old: Message) -> Message:
        message = old.again(_replay_id(old), self.now())
        await self.outbox.enqueue([message])
        self.wake()
        return message

    async def _is_replayed(self, message: Message) -> bool:
        return await self.outbox.get(_replay_id(message)) is not None


def _replay_id(message: Message) -> str:
    return derived("dlv_", message.created_at, message.id, "replay")
