"""How many replicas and how much Redis a load needs, from what one of each spends.

Pure arithmetic over `benchmarks/results/latest.json`: CPU time a request from the rows beside the
peers, all else from `benchmarks.scale.measure`. A process is filled to `FILL` of a core or of its
memory, whichever comes first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

FILL = 0.6  # of a core: what is left takes bursts, restarts, and one replica or node that is gone
REPLICA_MEMORY_BYTES = 512 * 1024**2
NODE_MEMORY_BYTES = 64 * 1024**3
PARTITIONS = 16  # nodes that can share the jobs of one namespace (decision 7)
LEAST_REPLICAS = 2
REDIS_CALL_MICROSECONDS = 5.0  # of the gateway's CPU, among many others (decision 6)
SECONDS_PER_DAY = 86_400.0
# A change is read by every other replica: the job, which is what is measured, and its new events.
NOTICE_READS = 2
OWN_SHARE = 0.5  # of a replica's filling, what it may spend on hearing of others' changes

Section = Mapping[str, float]
Sections = Mapping[str, Section]


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for, at its peak.

    `cached_share` of the requests are polls answered from memory; the rest go to the upstream. A
    live job lasts `job_seconds` and has `job_events` events; ended ones are kept `kept_days`.
    """

    name: str
    requests_per_second: float
    live_jobs: int
    streams: int
    cached_share: float = 0.9
    job_seconds: float = 1200.0
    job_events: float = 30.0
    kept_days: float = 1.0
    keys: int = 1000
    webhooks: int = 1000

    @property
    def jobs_per_second(self) -> float:
        """How many begin, and how many end."""
        return self.live_jobs / self.job_seconds


@dataclass(frozen=True, slots=True)
class Costs:
    """What a unit costs; CPU in microseconds, memory in bytes.

    `job_` costs are of a whole life with `job_events` events; `known_job_memory` is what every
    replica has of every live job, `live_job_memory` that and what watching it takes.
    """

    cached_cpu: float
    proxied_cpu: float
    job_cpu: float
    live_job_cpu: float
    notice_cpu: float
    idle_cpu: float
    redis_cached_cpu: float
    redis_proxied_cpu: float
    redis_job_cpu: float
    redis_live_job_cpu: float
    redis_notice_cpu: float
    redis_idle_cpu: float
    rest_memory: float
    live_job_memory: float
    known_job_memory: float
    stream_memory: float
    redis_job_memory: float
    redis_live_job_memory: float
    redis_window_memory: float
    redis_webhook_memory: float
    job_events: float


@dataclass(frozen=True, slots=True)
class Need:
    """All groups together; a group is a namespace, with replicas and a Redis of its own.

    `bound` names what fills the replicas.
    """

    load: Load
    groups: int
    replicas: int
    bound: str
    gateway_cores: float
    redis_nodes: int
    redis_cores: float
    redis_memory_bytes: float


def costs_of(rows: Mapping[str, Sections], stream_bytes: float, measured: Sections) -> Costs:
    """From the sections `rows`, `idle_stream_bytes` and `scale` of the results.

    Raises KeyError for a section that was not measured.
    """
    held, idle, job = measured["held"], measured["idle_second"], measured["job"]
    redis = "redis_cpu_microseconds"
    gateway = "gateway_cpu_microseconds"
    calls = {
        name: measured[name]["calls"] * REDIS_CALL_MICROSECONDS for name in ("cached", "proxied")
    }
    return Costs(
        cached_cpu=rows["cached"]["gateway"]["cpu_microseconds"] + calls["cached"],
        proxied_cpu=rows["proxied"]["gateway"]["cpu_microseconds"] + calls["proxied"],
        job_cpu=job[gateway],
        live_job_cpu=measured["live_job_second"][gateway],
        notice_cpu=measured["notice"][gateway] * NOTICE_READS,
        idle_cpu=idle[gateway],
        redis_cached_cpu=measured["cached"][redis],
        redis_proxied_cpu=measured["proxied"][redis],
        redis_job_cpu=job[redis],
        redis_live_job_cpu=measured["live_job_second"][redis],
        redis_notice_cpu=measured["notice"][redis] * NOTICE_READS,
        redis_idle_cpu=idle[redis],
        rest_memory=held["rest_bytes"],
        live_job_memory=held["live_job_bytes"],
        known_job_memory=held["known_job_bytes"],
        stream_memory=stream_bytes,
        redis_job_memory=job["redis_memory_bytes"],
        redis_live_job_memory=held["live_job_redis_bytes"],
        redis_window_memory=held["window_redis_bytes"],
        redis_webhook_memory=held["webhook_redis_bytes"],
        job_events=job["events"],
    )


def need(load: Load, costs: Costs) -> Need:
    """What a load takes: as few groups as there can be.

    Every replica of a group knows every live job, and hears of every change: replicas cost
    replicas. Raises ValueError when a single job a group would still be too much.
    """
    for groups in range(1, load.live_jobs + 1):
        found = _group(_part(load, groups), costs)
        if found is not None:
            return replace(
                found,
                load=load,
                groups=groups,
                replicas=found.replicas * groups,
                gateway_cores=found.gateway_cores * groups,
                redis_nodes=found.redis_nodes * groups,
                redis_cores=found.redis_cores * groups,
                redis_memory_bytes=found.redis_memory_bytes * groups,
            )
    raise ValueError(f"no number of groups takes {load.name}")


def _part(load: Load, groups: int) -> Load:
    return replace(
        load,
        requests_per_second=load.requests_per_second / groups,
        live_jobs=math.ceil(load.live_jobs / groups),
        streams=math.ceil(load.streams / groups),
        keys=load.keys,  # any of them may ask any group
        webhooks=math.ceil(load.webhooks / groups),
    )


def _group(load: Load, costs: Costs) -> Need | None:
    """What one group takes; None when it is too much for one."""
    events_each = load.job_events / costs.job_events
    changes = load.jobs_per_second * load.job_events
    own_cpu = changes * costs.notice_cpu + costs.idle_cpu
    own_memory = costs.rest_memory + load.live_jobs * costs.known_job_memory
    free_cpu = FILL * 1e6 - own_cpu
    free_memory = FILL * REPLICA_MEMORY_BYTES - own_memory
    if free_cpu < (1 - OWN_SHARE) * FILL * 1e6 or free_memory <= 0:
        return None
    shared_cpu = (
        load.requests_per_second * _mean(load, costs.cached_cpu, costs.proxied_cpu)
        + load.jobs_per_second * costs.job_cpu * events_each
        + load.live_jobs * costs.live_job_cpu
    )
    shared_memory = (
        load.live_jobs * (costs.live_job_memory - costs.known_job_memory)
        + load.streams * costs.stream_memory
    )
    by_cpu = math.ceil(shared_cpu / free_cpu)
    by_memory = math.ceil(shared_memory / free_memory)
    replicas = max(LEAST_REPLICAS, by_cpu, by_memory)
    redis_cpu = _redis_cpu(load, costs, replicas)
    memory = _redis_memory(load, costs)
    nodes = max(
        1, math.ceil(redis_cpu / (FILL * 1e6)), math.ceil(memory / (FILL * NODE_MEMORY_BYTES))
    )
    if nodes > PARTITIONS:
        return None
    return Need(
        load=load,
        groups=1,
        replicas=replicas,
        bound=_bound(by_cpu, by_memory),
        gateway_cores=(shared_cpu + replicas * own_cpu) / 1e6,
        redis_nodes=nodes,
        redis_cores=redis_cpu / 1e6,
        redis_memory_bytes=memory,
    )


def _mean(load: Load, cached: float, proxied: float) -> float:
    return load.cached_share * cached + (1 - load.cached_share) * proxied


def _redis_cpu(load: Load, costs: Costs, replicas: int) -> float:
    """Microseconds a second, whatever number of nodes shares them."""
    changes = load.jobs_per_second * load.job_events
    return (
        load.requests_per_second * _mean(load, costs.redis_cached_cpu, costs.redis_proxied_cpu)
        + load.jobs_per_second * costs.redis_job_cpu * load.job_events / costs.job_events
        + load.live_jobs * costs.redis_live_job_cpu
        + replicas * (costs.redis_idle_cpu + changes * costs.redis_notice_cpu)
    )


def _redis_memory(load: Load, costs: Costs) -> float:
    ended = load.jobs_per_second * load.kept_days * SECONDS_PER_DAY
    return (
        load.live_jobs * costs.redis_live_job_memory
        + ended * costs.redis_job_memory * load.job_events / costs.job_events
        + load.keys * costs.redis_window_memory
        + load.webhooks * costs.redis_webhook_memory
    )


def _bound(by_cpu: int, by_memory: int) -> str:
    if max(by_cpu, by_memory) <= LEAST_REPLICAS:
        return "availability"
    return "CPU" if by_cpu >= by_memory else "memory"
