"""What a connection needs to know of the server it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gateway.core.message import Request, Response
from gateway.policy.chain import Chain
from gateway.web.adapt import Arrival
from gateway.web.head import METHODS, Head

if TYPE_CHECKING:
    from gateway.web.protocol import ClientProtocol, FullLane


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a client may take: bytes of a head, and seconds. See `settings.server.Server`.

    `fast` False sends every request down the full lane.
    """

    max_header: int
    header_timeout: float
    body_timeout: float
    keepalive_timeout: float
    write_timeout: float
    methods: tuple[str, ...] = METHODS
    fast: bool = True


class Client(Protocol):
    """A connection, as its server counts and ends it."""

    def abort(self) -> None:
        """Break the connection."""
        ...

    def leave(self) -> None:
        """Ask whoever speaks through a tunnel to come back later."""
        ...

    def end_if_idle(self) -> None:
        """Close a connection that serves nothing."""
        ...


class Listening(Protocol):
    """The server, as its connections see it."""

    terms: Terms
    is_draining: bool

    def judge(self, head: Head, peer: str, scheme: str) -> Arrival:
        """What a head asks for."""
        ...

    @property
    def chain(self) -> Chain:
        """The chain in force."""
        ...

    def adopt(self, request: Request, response: Response) -> Response:
        """The answer as it is to be sent."""
        ...

    def now(self) -> float:
        """Epoch seconds."""
        ...

    def date(self, at: float) -> str:
        """The `Date` of a time, epoch seconds."""
        ...

    def full_lane(self, client: ClientProtocol) -> FullLane:
        """Aiohttp's side of a connection."""
        ...

    def joined(self, client: Client) -> bool:
        """A client has connected; False when there are too many."""
        ...

    def left(self, client: Client) -> None:
        """It is gone."""
        ...
