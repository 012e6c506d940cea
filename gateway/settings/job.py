"""How the upstream speaks of jobs, and how they are watched: `jobs` of `gateway.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from gateway.settings.base import Model, PositiveSeconds, Seconds, Size


class CreateRoute(Model):
    """A route that creates jobs; `fields` override the contract's for its answers."""

    path: str
    methods: tuple[str, ...] = ("POST",)
    fields: dict[str, str] = {}


class JobRoute(Model):
    """A route about one job."""

    path: str
    methods: tuple[str, ...] = ("GET",)
    fields: dict[str, str] = {}


class CancelRoute(JobRoute):
    """The route that cancels a job."""

    methods: tuple[str, ...] = ("DELETE",)


class ListRoute(JobRoute):
    """The list of jobs; `items` is the JMESPath of the array."""

    items: str = "jobs"


class Poll(Model):
    """Adaptive polling: fast while a job moves, slow while it does not."""

    min: PositiveSeconds = 1.0
    max: PositiveSeconds = 15.0


class Watch(Model):
    """How jobs are observed.

    At most `max_streams` jobs are followed by the upstream's streams, the others polled, at most
    `max_polls` at a time. All that is asked so keeps to `max_per_second`. From `survey_from` polled
    jobs on the upstream's list is asked which of them have moved; null never asks it.
    """

    source: Literal["auto", "stream", "poll"] = "auto"
    poll: Poll = Poll()
    timeout: PositiveSeconds = 3600.0
    lost_after: Seconds = 60.0
    progress_step: float = Field(default=1.0, gt=0, le=100)
    adopt: bool = True
    vanished: Literal["failed", "cancelled"] = "failed"
    lease: PositiveSeconds = 30.0
    max_streams: int = Field(default=256, ge=0)
    max_polls: int = Field(default=32, ge=1)
    max_per_second: float = Field(default=200.0, ge=0.1, le=10_000)
    survey_from: int | None = Field(default=100, ge=1)


class FanOut(Model):
    """How one observation of a job is told on to every client that streams it."""

    enabled: bool = True
    heartbeat: PositiveSeconds = 15.0
    replay: int = Field(default=64, ge=1, le=1024)
    max_backlog: Size = 256 * 1024


class Tickets(Model):
    """Stream tickets, for browsers, which can send no key with a stream."""

    lifetime: Annotated[PositiveSeconds, Field(le=3600)] = 60.0
    secret_key: SecretStr | None = None


class Admission(Model):
    """How many jobs may be active at once, in all, of one owner and of one key.

    `on_store_error` says what happens while the store is away in which replicas share the places.
    """

    max_concurrent: int = Field(default=10, ge=1)
    max_per_owner: int | None = Field(default=None, ge=1)
    max_per_key: int | None = Field(default=None, ge=1)
    on_store_error: Literal["local", "allow", "deny"] = "local"
    mode: Literal["enforce", "shadow"] = "enforce"


class JobContract(Model):
    """How the upstream speaks of jobs; fields are JMESPath over its answers."""

    create: tuple[CreateRoute, ...] = ()
    status: JobRoute | None = None
    details: JobRoute | None = None
    stream: JobRoute | None = None
    list: ListRoute | None = None
    cancel: CancelRoute | None = None
    fields: dict[str, str] = {}
    states: dict[str, tuple[str, ...]] = {}
    retention: PositiveSeconds = 365 * 86400.0
    watch: Watch = Watch()
    fan_out: FanOut = FanOut()
    tickets: Tickets = Tickets()
    admission: Admission = Admission()
