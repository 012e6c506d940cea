"""One job's stream as it is told to its readers: what was said last, and who hears the next.

Each event is made into bytes once. They are written to the readers in turns, so that a job with
many of them keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from gateway.core.sse import ServerEvent, encode_event
from gateway.job.feed import Feed, Piece
from gateway.settings.job import FanOut
from gateway.telemetry.metric import Metrics

HEARTBEAT = Piece(b": heartbeat\n\n")
AT_ONCE = 256  # readers that are written to before others get their turn
MAX_KEPT_BYTES = 256 * 1024
_KEPT_SECONDS = 60.0  # what was told, after the last reader has left
_MAX_OPENING = 8


class _Told(NamedTuple):
    id: int | None
    piece: Piece


class _Turn(NamedTuple):
    """A piece on its way to the readers, None for the end; `at` is when it was told."""

    place: int
    piece: Piece | None
    at: float


class Channel:
    """The events of one job, for readers who come at any time.

    An event has the job's sequence for an id when that has moved since the one before it. Who names
    the last id it saw gets what followed, as far as it is kept; others get the greeting, and how
    the job stands. `is_followed` while the upstream's own stream is told.
    """

    def __init__(self, settings: FanOut, metrics: Metrics) -> None:
        self.is_followed = False
        self.was_read = False
        self.has_ended = False  # the job has: what is told from now on is a farewell
        self.last_id = 0
        self._settings = settings
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._readers: dict[Feed, None] = {}
        self._greeting: list[Piece] = []
        self._latest: list[Piece] = []  # from the last event on that shows the job
        self._kept: deque[_Told] = deque()
        self._kept_bytes = 0
        self._count = 0
        self._turns: deque[_Turn] = deque()
        self._waiting: list[Feed] = []  # readers that the turn has yet to come to
        self._is_turning = False
        self._settled: asyncio.Event | None = None
        self._is_over: bool | None = None  # ended, True when in order
        self._told_at = self._left_at = self._loop.time()
        self._heart: asyncio.TimerHandle | None = None

    @property
    def reader_count(self) -> int:
        """How many read."""
        return len(self._readers)

    @property
    def is_over(self) -> bool:
        """True when nothing more is told."""
        return self._is_over is not None

    @property
    def has_told(self) -> bool:
        """True once an event has shown the job."""
        return bool(self._latest)

    @property
    def is_idle(self) -> bool:
        """True when nobody reads, and nobody did of late."""
        return not self._readers and self._loop.time() - self._left_at > _KEPT_SECONDS

    # --- what is told --------------------------------------------------------------------------

    def greet(self, event: ServerEvent, *, anew: bool) -> None:
        """What newcomers are told first. Those to whom the job was shown are not greeted again."""
        piece = Piece(encode_event(event))
        if anew:
            self._greeting = []
        if len(self._greeting) < _MAX_OPENING:
            self._greeting.append(piece)
        if not self._latest:
            self._spread(piece)

    def show(self, event: ServerEvent, sequence: int) -> None:
        """An event that shows the job as recorded up to `sequence`."""
        number = None
        if sequence > self.last_id:
            number = self.last_id = sequence
        piece = Piece(encode_event(event, number))
        self._latest = [piece]
        self._keep(_Told(number, piece))
        self._spread(piece)

    def add(self, event: ServerEvent) -> None:
        """An event that shows nothing of the job, as a farewell."""
        piece = Piece(encode_event(event))
        if len(self._latest) < _MAX_OPENING:
            self._latest.append(piece)
        self._keep(_Told(None, piece))
        self._spread(piece)

    def finish(self, *, complete: bool) -> None:
        """Nothing more is told; not `complete` when the stream broke off."""
        if self._is_over is None:
            self._is_over = complete
            self._put(None)

    async def settled(self) -> None:
        """Until all that was told is with the readers' connections."""
        if self._turns:
            self._settled = self._settled or asyncio.Event()
            await self._settled.wait()

    # --- who reads -----------------------------------------------------------------------------

    def join(self, last_id: int | None) -> Feed:
        """A reader's end; `last_id` is the last event that it has seen."""
        feed = Feed(self, self._count, self._settings.max_backlog)
        feed.fill([*self._greeting, *self._missed(last_id)])
        if self._is_over is not None:
            feed.end(complete=self._is_over)
        self._readers[feed] = None
        self.was_read = True
        self._metrics.stream_readers.inc()
        if self._heart is None:
            self._heart = self._loop.call_later(self._settings.heartbeat, self._beat)
        return feed

    def left(self, feed: Feed) -> None:
        """A reader is gone."""
        del self._readers[feed]
        self._left_at = self._loop.time()
        self._metrics.stream_readers.dec()

    def evicted(self) -> None:
        """A reader was too slow."""
        self._metrics.stream_evictions_total.inc()

    def close(self) -> None:
        """Stop the heart; readers that are left see the stream break off."""
        if self._heart is not None:
            self._heart.cancel()
        for feed in list(self._readers):
            feed.end(complete=False)

    def _missed(self, last_id: int | None) -> list[Piece]:
        """What a reader is told who knows the job up to `last_id`."""
        if last_id is None:
            return self._latest
        seen = -1
        for index, told in enumerate(self._kept):
            if told.id is not None and told.id <= last_id:
                seen = index
        if seen < 0 and last_id >= self.last_id:
            return []  # it knows more than there is here
        return [told.piece for told in list(self._kept)[seen + 1 :]]

    def _keep(self, told: _Told) -> None:
        self._kept.append(told)
        self._kept_bytes += len(told.piece)
        limit = 1 if self.is_idle else self._settings.replay
        while len(self._kept) > limit or (
            self._kept_bytes > MAX_KEPT_BYTES and len(self._kept) > 1
        ):
            self._kept_bytes -= len(self._kept.popleft().piece)

    # --- to the readers, in turns ----------------------------------------------------------------

    def _spread(self, piece: Piece) -> None:
        self._count += 1
        self._told_at = self._loop.time()
        if self._readers:
            self._put(piece)

    def _put(self, piece: Piece | None) -> None:
        self._turns.append(_Turn(self._count, piece, self._loop.time()))
        if not self._is_turning:
            self._waiting = list(self._readers)
            self._turn()

    def _turn(self) -> None:
        """Write to some of the readers; the others after what else there is to do."""
        self._is_turning = True
        left = AT_ONCE
        while self._turns:
            turn = self._turns[0]
            while self._waiting:
                if not left:
                    self._loop.call_soon(self._turn)
                    return
                left -= 1
                self._serve(self._waiting.pop(), turn)
            if turn.piece is not None:
                self._metrics.stream_fan_out_seconds.observe(self._loop.time() - turn.at)
            self._turns.popleft()
            self._waiting = list(self._readers)
        self._waiting = []
        self._is_turning = False
        if self._settled is not None:
            self._settled.set()
            self._settled = None

    def _serve(self, feed: Feed, turn: _Turn) -> None:
        if turn.piece is None:
            feed.end(complete=bool(self._is_over))
        elif feed.place < turn.place:
            feed.push(turn.piece)

    def _beat(self) -> None:
        """Show that the stream is alive when nothing else did for a while."""
        self._heart = None
        if not self._readers:
            return
        silent = self._loop.time() - self._told_at
        wait = self._settings.heartbeat - silent
        if wait <= 0.001:
            self._spread(HEARTBEAT)
            wait = self._settings.heartbeat
        self._heart = self._loop.call_later(wait, self._beat)
