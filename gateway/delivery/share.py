"""Who gets the next slot: no destination starves another, be it slow, failing or far behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

_ROUND_MAX = 1000  # destinations passed over in one round: each is named in every claim


class Shares:
    """The slots of one lane.

    A destination has at most `per_destination` of them. Those whose last attempt failed have no
    more than half among them, however many they are. What waits is taken in rounds: who was served
    waits until everybody else has been, so that a long queue delays nobody by its length.
    """

    def __init__(self, concurrency: int, per_destination: int) -> None:
        self._concurrency = concurrency
        self._per_destination = per_destination
        # A lane for one destination alone has nobody to keep slots for.
        self._failing_limit = concurrency // 2 if per_destination < concurrency else concurrency
        self._in_flight: Counter[str] = Counter()
        self._failing: set[str] = set()
        self._failing_in_flight = 0
        self._served: set[str] = set()
        # A destination's share, then half of what was before, down to 1.
        self.sizes: Sequence[int] = [
            per_destination >> step for step in range(per_destination.bit_length())
        ]

    @property
    def is_idle(self) -> bool:
        """Nobody is passed over, whatever the claim."""
        return not self._in_flight and not self._served

    @property
    def are_failing(self) -> bool:
        """Some destinations failed last."""
        return bool(self._failing)

    @property
    def failing_room(self) -> int:
        """How many more slots may go to destinations that fail."""
        return self._failing_limit - self._failing_in_flight if self._failing else self._concurrency

    def passed_over(self, share: int, *, failing: bool = False) -> list[str]:
        """Whom a claim of up to `share` messages each leaves out; with `failing`, those too."""
        room = self._per_destination - share
        out = {each for each, count in self._in_flight.items() if count > room} | self._served
        return list(out | self._failing if failing else out)

    def begin(self, destination: str) -> None:
        """An attempt begins."""
        self._in_flight[destination] += 1
        self._failing_in_flight += destination in self._failing

    def end(self, destination: str, *, failed: bool) -> None:
        """An attempt has ended."""
        count = self._in_flight[destination]
        self._failing_in_flight -= destination in self._failing
        if count == 1:
            del self._in_flight[destination]
        else:
            self._in_flight[destination] = count - 1
        self._judge(destination, failed=failed)

    def serve(self, destinations: Iterable[str]) -> None:
        """These were served in this round, and more may be waiting."""
        self._served.update(destinations)
        if len(self._served) > _ROUND_MAX:
            self._served.clear()

    def begin_round(self) -> bool:
        """Everybody has been served: begin anew. False when nobody was passed over for it."""
        had_served = bool(self._served)
        self._served.clear()
        return had_served

    def _judge(self, destination: str, *, failed: bool) -> None:
        rest = self._in_flight.get(destination, 0)
        if failed and destination not in self._failing:
            self._failing.add(destination)
            self._failing_in_flight += rest
        elif not failed and destination in self._failing:
            self._failing.discard(destination)
            self._failing_in_flight -= rest
