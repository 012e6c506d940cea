"""Several workers need Redis; and together they keep within what the settings allow the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.settings.base import Model
from gateway.settings.check import check
from gateway.settings.model import Settings
from gateway.settings.share import share

REDIS = {"url": "redis://127.0.0.1:6379"}


def problems(**fields: Any) -> list[str]:
    settings = Settings.model_validate(fields)
    return [f"{'.'.join(map(str, where))}: {what}" for where, what in check(settings)]


def test_one_worker_needs_nothing() -> None:
    assert problems(workers=1) == []


@pytest.mark.parametrize("redis", [None, REDIS])
def test_more_than_one_are_refused_without_a_store_they_share(redis: Any) -> None:
    (said,) = problems(workers=2, redis=redis)

    assert said.startswith(
        "workers: more than one share jobs, limits and keys in Redis: set store."
    )
    assert "set workers: 1" in said


def test_keys_in_a_file_are_refused_beside_workers() -> None:
    (said,) = problems(
        workers=2,
        redis=REDIS,
        store={"kind": "redis", "keys": "sqlite"},
        upstream={"instance": "app"},
    )

    assert said.startswith("store.keys: must not be sqlite beside workers")


@pytest.mark.parametrize("upstream", [{"instance": "app"}, {"shared": True}])
def test_workers_on_redis_pass(upstream: dict[str, Any]) -> None:
    assert problems(workers=2, redis=REDIS, store={"kind": "redis"}, upstream=upstream) == []


@pytest.mark.parametrize("workers", [0, -1, 129])
def test_a_number_of_workers_that_is_none_is_refused(workers: int) -> None:
    with pytest.raises(ValueError, match="workers"):
        Settings(workers=workers)


# Bounds of a request, a job or an owner, of what is in Redis, or of a process by its nature.
NOT_DIVIDED = {
    "server.max_body",
    "server.max_header",
    "jobs.admission.max_concurrent",
    "jobs.admission.max_per_key",
    "jobs.admission.max_per_owner",
    "jobs.fan_out.max_backlog",
    "webhooks.max_per_owner",
    "webhooks.max_retries",
    "webhooks.max_timeout",
    "health.max_cpu",
    "health.max_loop_lag",
}


def leaves(model: Model, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in model:
        if isinstance(value, Model):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def test_every_bound_is_divided_or_known_not_to_be() -> None:
    settings = Settings.model_validate({"workers": 2, "redis": REDIS})
    one = dict(leaves(share(settings)))
    same = {name for name, value in leaves(settings) if one[name] == value}

    assert {name for name in same if name.rpartition(".")[2].startswith("max_")} == NOT_DIVIDED
    assert "webhooks.concurrency" not in same


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_the_shares_of_all_workers_make_the_whole(workers: int) -> None:
    settings = Settings(workers=workers)
    one = share(settings)
    bounds = [
        (settings.server.max_connections, one.server.max_connections),
        (settings.upstream.max_connections, one.upstream.max_connections),
        (settings.upstream.max_waiting, one.upstream.max_waiting),
        (settings.upstream.max_streams, one.upstream.max_streams),
        (settings.jobs.watch.max_streams, one.jobs.watch.max_streams),
        (settings.jobs.watch.max_polls, one.jobs.watch.max_polls),
        (settings.jobs.watch.max_per_second, one.jobs.watch.max_per_second),
        (settings.webhooks.concurrency, one.webhooks.concurrency),
        (settings.webhooks.per_endpoint, one.webhooks.per_endpoint),
        (settings.convex.concurrency, one.convex.concurrency),
        (settings.health.max_memory, one.health.max_memory),
    ]

    for whole, part in bounds:
        assert part >= 1
        assert whole <= part * workers < whole + workers
    retry = settings.upstream.retry.per_second
    assert one.upstream.retry.per_second * workers == pytest.approx(retry)


def test_what_is_no_bound_of_a_process_is_the_same_for_each() -> None:
    settings = Settings(workers=4)

    one = share(settings)

    assert one.workers == 4
    assert one.jobs.admission == settings.jobs.admission
    assert one.server.drain_timeout == settings.server.drain_timeout
    assert one.upstream.breaker == settings.upstream.breaker
