"""Typed settings of `gateway.yaml`: frozen, unknown keys refused."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, WithJsonSchema

MAX_WORKERS = 128
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)")


def parse_duration(value: Any) -> Any:
    """`500ms`, `15s`, `1h` or a number of seconds, as seconds.

    Raises ValueError saying what a duration looks like.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        return float(found[1]) * _UNITS[found[2]]
    raise ValueError(f"{value!r} is not a duration; write it like 500ms, 15s, 5m or 1h")


def parse_size(value: Any) -> Any:
    """`64KiB`, `1MiB` or a number of bytes, as bytes. Raises ValueError likewise."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        return int(found[1]) * _SIZES[found[2]]
    raise ValueError(f"{value!r} is not a size; write it like 64KiB, 1MiB or 1048576")


_TEXT = {"anyOf": [{"type": "string"}, {"type": "number"}]}
Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0),
    WithJsonSchema({**_TEXT, "examples": ["15s"]}),
]
PositiveSeconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(gt=0),
    WithJsonSchema({**_TEXT, "examples": ["15s"]}),
]
Size = Annotated[
    int, BeforeValidator(parse_size), Field(gt=0), WithJsonSchema({**_TEXT, "examples": ["1MiB"]})
]
Port = Annotated[int, Field(ge=0, le=65535)]
Mode = Literal["enforce", "shadow"]


class Model(BaseModel):
    """Frozen; a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Listener(Model):
    """An address to listen on; port 0 takes a free one."""

    host: str = "0.0.0.0"  # noqa: S104 - a sidecar's public port is meant to be reached
    port: Port = 8080


class AdminListener(Listener):
    """Where orchestrators and operators ask."""

    port: Port = 9901


class ServerTls(Model):
    """PEM files of the public listener; renewed ones are taken up without a restart."""

    certificate: str
    key: str


class Server(Model):
    """Listeners and what they accept.

    `socket` is the path of a Unix socket on which the API is served as well. `reuse_port` lets
    several processes listen on the public port at once. `forwarded` says in which fields trusted
    proxies tell who asked. `hosts` are the names the public listener answers for, `*.example.com`
    for every name below; none means any. `further_methods` pass beside the usual ones.
    `max_header` bounds a request's whole head. `body_timeout` is the longest wait for the next KiB
    of a body, `write_timeout` for a client that does not read.
    """

    public: Listener = Listener()
    admin: AdminListener = AdminListener()
    tls: ServerTls | None = None
    socket: str | None = None
    reuse_port: bool = False
    trusted_proxies: tuple[str, ...] = ()
    forwarded: Literal["x-forwarded", "forwarded"] = "x-forwarded"
    hosts: tuple[str, ...] = ()
    further_methods: tuple[str, ...] = ()
    max_header: Size = 32 * 1024
    max_body: Size = 1024**2
    max_connections: int = Field(default=20_000, ge=1)
    header_timeout: PositiveSeconds = 10.0
    body_timeout: PositiveSeconds = 30.0
    write_timeout: PositiveSeconds = 30.0
    keepalive_timeout: PositiveSeconds = 75.0
    drain_delay: Seconds = 1.0
    drain_timeout: PositiveSeconds = 25.0
    public_health: bool = True
    public_metrics: bool = False


class AdminRoute(Model):
    """A route of the upstream's own administration; `/*` at the end takes everything below."""

    path: str
    methods: tuple[str, ...] = ("POST", "PUT", "PATCH", "DELETE")


class UpstreamTls(Model):
    """How an https upstream is verified: it always is."""

    ca: str | None = None
    server_name: str | None = None


class UpstreamRetry(Model):
    """How many requests may be sent a second time: a share of them, and some each second."""

    share: float = Field(default=0.2, ge=0, le=1)
    per_second: float = Field(default=3.0, ge=0)


class UpstreamBreaker(Model):
    """When the upstream is left alone: after so many failures in a row (0: never), so long."""

    failures: int = Field(default=20, ge=0)
    open: PositiveSeconds = 2.0


class Upstream(Model):
    """The job API behind the gateway.

    Requests to `admin` routes need the scope `admin`. `framing: tolerant` takes what RFC 9112 lets
    a client take: a body that goes on beyond its length ends there, one in a coding that nobody
    registered ends with its connection.
    """

    url: str = "http://127.0.0.1:3001"
    instance: str | None = None
    shared: bool = False
    connect_timeout: PositiveSeconds = 2.0
    response_timeout: PositiveSeconds = 60.0
    idle_timeout: PositiveSeconds = 300.0
    total_timeout: PositiveSeconds = 3600.0
    keepalive: PositiveSeconds = 4.0
    max_connections: int = Field(default=512, ge=1)
    max_waiting: int = Field(default=1024, ge=0)
    queue_timeout: PositiveSeconds = 5.0
    max_streams: int = Field(default=10_000, ge=0)
    framing: Literal["strict", "tolerant"] = "strict"
    retry: UpstreamRetry = UpstreamRetry()
    breaker: UpstreamBreaker = UpstreamBreaker()
    tls: UpstreamTls = UpstreamTls()
    health_path: str = "/health"
    admin: tuple[AdminRoute, ...] = (
        AdminRoute(path="/api/v1/queue/pause"),
        AdminRoute(path="/api/v1/queue/resume"),
        AdminRoute(path="/api/v1/queue/drain"),
        AdminRoute(path="/api/v1/monitoring/*"),
    )


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


class Sqlite(Model):
    """The embedded store; an operation waits for the disk no longer than `timeout`."""

    path: str = "var/gateway.db"
    timeout: PositiveSeconds = 5.0


class Redis(Model):
    """A Redis or Valkey server, or a Cluster, that many replicas share.

    `url` is `redis://user:password@host:6379/0`, or `rediss://` over TLS.
    """

    url: SecretStr
    cluster: bool = False
    nodes: tuple[str, ...] = ()
    namespace: str = "gw"
    ca_file: str | None = None
    timeout: PositiveSeconds = 2.0
    connect_timeout: PositiveSeconds = 1.0
    limit_timeout: PositiveSeconds = 0.05
    cache_timeout: PositiveSeconds = 0.05
    cache_max_bytes: Size = 256 * 1024**2


class Store(Model):
    """Where jobs, webhooks and the outbox live; `redis` means the server of the section `redis`.

    `keys` says where API keys and idempotency keys do, if it is not the same.
    """

    kind: Literal["sqlite", "redis"] = "sqlite"
    keys: Literal["sqlite", "redis"] | None = None
    sqlite: Sqlite = Sqlite()


class WebhookAddresses(Model):
    """Where webhooks may go. `allow` opens private ranges by CIDR, never metadata addresses."""

    schemes: tuple[Literal["https", "http"], ...] = ("https",)
    ports: tuple[Port, ...] = (443, 80, 8443)
    any_port: bool = False
    allow: tuple[str, ...] = ()


class Webhooks(Model):
    """Delivery of events to receivers."""

    secret_key: SecretStr | None = None
    timeout: Annotated[PositiveSeconds, Field(le=30)] = 15.0
    max_timeout: Annotated[PositiveSeconds, Field(le=30)] = 30.0
    lease_margin: Annotated[PositiveSeconds, Field(ge=6)] = 15.0
    max_retries: int = Field(default=3, ge=0, le=10)
    retry_delays: tuple[Seconds, ...] = (0.5, 2, 30, 300, 1800, 7200, 18000, 36000, 36000)
    concurrency: int = Field(default=64, ge=1)
    per_endpoint: int = Field(default=4, ge=1)
    max_per_owner: int = Field(default=100, ge=1)
    addresses: WebhookAddresses = WebhookAddresses()
    disable_after: PositiveSeconds = 120 * 3600.0
    disable_exhausted: int = Field(default=5, ge=1)
    payload_retention: Seconds = 7 * 86400.0
    attempt_retention: Seconds = 30 * 86400.0
    audit_retention: Annotated[PositiveSeconds, Field(ge=86400)] = 365 * 86400.0


class ConvexFunctions(Model):
    """Paths of the deployed functions; null leaves that one uncalled."""

    update_progress: str | None = "jobs:updateProgress"
    track_analytics: str | None = "jobs:trackAnalytics"
    store_webhook_config: str | None = "webhooks:storeConfig"
    history: str | None = "jobs:history"
    update_status: str | None = None
    update_urls: str | None = None


class Convex(Model):
    """The Convex deployment; without a `url` nothing is written."""

    url: str | None = None
    deploy_key: SecretStr | None = None
    functions: ConvexFunctions = ConvexFunctions()
    timeout: PositiveSeconds = 10.0
    concurrency: int = Field(default=16, ge=1)
    retry_delays: tuple[Seconds, ...] = (0.5, 1, 2, 5, 10, 30, 60, 300)


class Policies(Model):
    """Where the policy files are, and how often they are looked at without a notice of a change."""

    directory: str = "policies"
    poll: PositiveSeconds = 10.0


class Metrics(Model):
    """Prometheus series on the admin listener."""

    enabled: bool = True


class Dependency(Model):
    """A further HTTP service whose health is shown (Deepgram, GCS)."""

    url: str
    timeout: PositiveSeconds = 5.0
    expect: tuple[int, ...] = ()
    critical: bool = False


ComponentName = Literal[
    "upstream",
    "sqlite",
    "convex",
    "redis",
    "memory",
    "cpu",
    "event_loop",
    "jobs",
    "webhooks",
    "policies",
    "openapi",
    "log",
]


class Health(Model):
    """Background checks; a probe only reads what they last found.

    Without a component of `critical` the gateway is unhealthy, without any other degraded; the
    store of jobs is always critical. A component that answers later than `slow` is degraded too.
    """

    interval: PositiveSeconds = 60.0
    timeout: PositiveSeconds = 5.0
    slow: PositiveSeconds = 2.0
    critical: tuple[ComponentName, ...] = ()
    dependencies: dict[str, Dependency] = {}
    max_memory: Size = 1024**3
    max_cpu: float = Field(default=0.9, gt=0, le=1)
    max_loop_lag: PositiveSeconds = 0.5
    min_disk: Size = 64 * 1024**2
    min_delivered: float = Field(default=0.5, ge=0, le=1)


class Log(Model):
    """Structured logs."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Settings(Model):
    """The whole of `gateway.yaml`."""

    api_title: str = "KlipStream Analysis API"
    api_version: str = "2.0.0"
    debug: bool = False
    workers: int = Field(default=1, ge=1, le=MAX_WORKERS)
    server: Server = Server()
    upstream: Upstream = Upstream()
    jobs: JobContract = JobContract()
    store: Store = Store()
    redis: Redis | None = None
    webhooks: Webhooks = Webhooks()
    convex: Convex = Convex()
    policies: Policies = Policies()
    metrics: Metrics = Metrics()
    health: Health = Health()
    log: Log = Log()
