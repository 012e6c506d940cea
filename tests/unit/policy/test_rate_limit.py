"""Rate limits: who a request counts for, and what it is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import structlog

from gateway.core.credential import Principal
from gateway.core.error import Forbidden, QuotaExceeded
from gateway.core.message import Request, Response
from gateway.core.route import Match, Route
from gateway.policy.chain import compose
from gateway.policy.quota import Stage
from gateway.policy.rate_limit import RateLimit
from gateway.policy.shared_window import SharedWindows
from gateway.policy.subject import address_subject
from gateway.settings.policy import RateLimitPolicy
from gateway.store.memory.window import MemoryWindowStore
from gateway.store.window import WindowStore
from gateway.telemetry.metric import Metrics
from gateway.web.problem import ProblemBoundary
from tests.support.fakes import FakeClock, make_request
from tests.support.policy import AbsentStore, Terminal, answer, sample

Limits = dict[str, dict[str, Any]]
PER_IP: Limits = {"per-ip": {"limit": 2, "window": "60s", "by": ["ip"]}}
PER_KEY: Limits = {"per-key": {"limit": 2, "window": "60s", "by": ["key"]}}
MEMBER = re.compile(r'"([^"]+)";r=(\d+);t=(\d+)')


class Limiter:
    """Both stages over one store, as the chain has them."""

    def __init__(self, metrics: Metrics, clock: FakeClock) -> None:
        self.metrics = metrics
        self.clock = clock
        self.store: WindowStore = MemoryWindowStore()
        self.terminal = Terminal()

    async def ask(
        self,
        limits: Limits,
        *,
        client: str = "192.0.2.1",
        key: str | None = "k1",
        route: str = "job-list",
        lineage: str = "",
        tier: str | None = None,
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        **policy: Any,
    ) -> Response:
        settings = RateLimitPolicy.model_validate({"limits": limits, **policy})
        handler = compose(
            [self.stage("address", settings), self.stage("key", settings)], self.terminal
        )
        self.request = request_of(client, key, route, tier=tier, lineage=lineage)
        self.request.scope = scope
        self.request.headers.update(headers or {})
        return await handler(self.request)

    def stage(self, stage: Stage, settings: RateLimitPolicy) -> RateLimit:
        windows = SharedWindows(self.store, MemoryWindowStore(), self.metrics, self.clock)
        return RateLimit(settings, stage, windows, self.metrics, self.clock)

    async def refused(self, limits: Limits, **given: Any) -> QuotaExceeded:
        with pytest.raises(QuotaExceeded) as caught:
            await self.ask(limits, **given)
        return caught.value


def request_of(client: str, key: str | None, route: str = "job-list", **identity: Any) -> Request:
    request = make_request("GET", "/", owner=None, match=Match(Route(route, "/")))
    request.client = client
    if key is not None:
        request.principal = Principal(key, "alice", frozenset(), **identity)
    return request


@pytest.fixture
def limiter(metrics: Metrics, clock: FakeClock) -> Limiter:
    return Limiter(metrics, clock)


async def test_the_limit_is_admitted_and_the_next_refused(limiter: Limiter) -> None:
    await limiter.ask(PER_IP)
    await limiter.ask(PER_IP)
    await limiter.refused(PER_IP)

    assert len(limiter.terminal.requests) == 2


async def test_quota_comes_back_after_the_window(limiter: Limiter, clock: FakeClock) -> None:
    await limiter.ask(PER_IP)
    await limiter.ask(PER_IP)
    error = await limiter.refused(PER_IP)

    clock.at += int(error.headers["Retry-After"])

    assert (await limiter.ask(PER_IP)).status == 200


async def test_each_address_has_its_own_quota(limiter: Limiter) -> None:
    limits: Limits = {"per-ip": {"limit": 1, "window": "60s", "by": ["ip"]}}
    await limiter.ask(limits, client="192.0.2.1")

    await limiter.ask(limits, client="192.0.2.2")
    await limiter.refused(limits, client="192.0.2.1")


@pytest.mark.parametrize(
    ("client", "subject"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1::5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::5", "2001:db8:0:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_an_ipv6_host_counts_by_its_64(client: str, subject: str) -> None:
    assert address_subject(client) == subject


async def test_each_key_has_its_own_quota_wherever_it_comes_from(limiter: Limiter) -> None:
    limits: Limits = {"per-key": {"limit": 1, "window": "60s", "by": ["key"]}}
    await limiter.ask(limits, key="k1", client="192.0.2.1")

    await limiter.ask(limits, key="k2", client="192.0.2.1")
    await limiter.refused(limits, key="k1", client="192.0.2.2")


async def test_without_a_key_the_address_counts(limiter: Limiter) -> None:
    limits: Limits = {"per-key": {"limit": 1, "window": "60s", "by": ["key"]}}
    await limiter.ask(limits, key=None, client="192.0.2.1")

    await limiter.ask(limits, key=None, client="192.0.2.2")
    await limiter.refused(limits, key=None, client="192.0.2.1")


async def test_by_ip_and_key_counts_each_pair(limiter: Limiter) -> None:
    limits: Limits = {"pair": {"limit": 1, "window": "60s", "by": ["ip", "key"]}}
    await limiter.ask(limits, key="k1", client="192.0.2.1")

    await limiter.ask(limits, key="k1", client="192.0.2.2")
    await limiter.ask(limits, key="k2", client="192.0.2.1")
    await limiter.refused(limits, key="k1", client="192.0.2.1")


async def test_limits_by_ip_alone_are_the_address_stages(
    limiter: Limiter, metrics: Metrics, clock: FakeClock
) -> None:
    settings = RateLimitPolicy.model_validate({"limits": {**PER_IP, **PER_KEY}})
    address, key = request_of("192.0.2.1", "k1"), request_of("192.0.2.1", "k1")

    await limiter.stage("address", settings)(address, Terminal())
    await limiter.stage("key", settings)(key, Terminal())

    assert (address.fields["quota"], key.fields["quota"]) == ({"per-ip": 1}, {"per-key": 1})


async def test_a_limit_counts_only_its_routes(limiter: Limiter) -> None:
    limits: Limits = {"creations": {"limit": 1, "window": "60s", "routes": ["job-create"]}}
    await limiter.ask(limits, route="job-create")

    response = await limiter.ask(limits, route="job-list")
    await limiter.refused(limits, route="job-create")

    assert "RateLimit" not in response.headers


async def test_health_is_never_limited(limiter: Limiter) -> None:
    limits: Limits = {"all": {"limit": 1, "window": "60s"}}

    for _ in range(3):
        assert (await limiter.ask(limits, route="health")).status == 200


async def test_switched_off_nothing_is_limited(limiter: Limiter) -> None:
    for _ in range(3):
        assert "RateLimit" not in (await limiter.ask(PER_IP, enabled=False)).headers


async def test_a_refusal_is_a_quota_problem(limiter: Limiter) -> None:
    limits: Limits = {**PER_KEY, "all": {"limit": 5, "window": "1s", "by": ["key"]}}
    await limiter.ask(limits)
    await limiter.ask(limits)

    error = await limiter.refused(limits)

    assert (error.status, error.extra) == (429, {"violated-policies": ["per-key"]})
    assert "per-key (2 in 60 s)" in error.detail
    assert error.headers["RateLimit-Policy"] == '"per-key";q=2;w=60'
    assert MEMBER.fullmatch(error.headers["RateLimit"])


async def test_retry_after_is_never_earlier_than_any_t(limiter: Limiter, clock: FakeClock) -> None:
    limits: Limits = {
        "slow": {"limit": 3, "window": "1h", "by": ["ip"]},
        "fast": {"limit": 1, "window": "10s", "by": ["key"]},
        "wide": {"limit": 9, "window": "600s", "by": ["key"]},
    }
    await limiter.ask(limits)
    clock.at += 3

    error = await limiter.refused(limits)

    members = MEMBER.findall(error.headers["RateLimit"])
    assert [name for name, _, _ in members] == ["fast"]
    assert all(int(error.headers["Retry-After"]) >= int(t) for _, _, t in members)


async def test_every_limit_of_a_request_is_told(limiter: Limiter) -> None:
    response = await limiter.ask({**PER_KEY, **PER_IP})

    assert response.headers["RateLimit-Policy"] == '"per-ip";q=2;w=60, "per-key";q=2;w=60'
    members = MEMBER.findall(response.headers["RateLimit"])
    assert [(name, left) for name, left, _ in members] == [("per-ip", "1"), ("per-key", "1")]
    assert all(60 <= int(t) <= 61 for _, _, t in members)


@pytest.mark.parametrize("limits", [PER_IP, PER_KEY, {**PER_KEY, **PER_IP}])
async def test_the_gateways_fields_replace_the_upstreams(limiter: Limiter, limits: Limits) -> None:
    limiter.terminal = Terminal(lambda: answer(headers={"RateLimit": '"theirs";r=1'}))

    headers = (await limiter.ask(limits)).headers

    assert "theirs" not in headers["RateLimit"]
    assert len(MEMBER.findall(headers["RateLimit"])) == len(limits)


async def test_where_nothing_is_limited_the_upstreams_fields_pass(limiter: Limiter) -> None:
    limiter.terminal = Terminal(lambda: answer(headers={"RateLimit": '"theirs";r=1'}))

    assert (await limiter.ask({})).headers["RateLimit"] == '"theirs";r=1'


async def test_other_errors_tell_the_quota_too(limiter: Limiter) -> None:
    limiter.terminal = Terminal(lambda: Forbidden("x"))

    with pytest.raises(Forbidden) as caught:
        await limiter.ask({**PER_KEY, **PER_IP})

    members = MEMBER.findall(caught.value.headers["RateLimit"])
    assert [name for name, _, _ in members] == ["per-ip", "per-key"]


async def test_a_refused_request_counts_against_no_limit_of_its_stage(limiter: Limiter) -> None:
    limits: Limits = {**PER_KEY, "wide": {"limit": 9, "window": "60s", "by": ["key"]}}
    for _ in range(2):
        await limiter.ask(limits)
    for _ in range(3):
        await limiter.refused(limits)

    assert limiter.request.fields["quota"] == {"per-key": 0, "wide": 7}


async def test_a_name_is_a_quoted_string(limiter: Limiter) -> None:
    headers = (await limiter.ask({'a "b"': {"limit": 1, "window": "500ms"}})).headers

    assert headers["RateLimit-Policy"] == r'"a \"b\"";q=1;w=1'


async def test_a_shadow_limit_logs_and_counts_but_never_refuses(
    limiter: Limiter, metrics: Metrics
) -> None:
    limits: Limits = {"trial": {"limit": 1, "window": "60s", "mode": "shadow"}}
    with structlog.testing.capture_logs() as lines:
        responses = [await limiter.ask(limits) for _ in range(3)]

    assert [response.status for response in responses] == [200, 200, 200]
    assert "RateLimit" not in responses[0].headers
    assert [line["policy"] for line in lines] == ["trial", "trial"]
    decisions = "rate_limit_decisions_total"
    assert sample(metrics, decisions, policy="trial", decision="admitted") == 1
    assert sample(metrics, decisions, policy="trial", decision="shadow") == 2


async def test_a_shadow_limit_that_refuses_stops_no_other_from_counting(limiter: Limiter) -> None:
    limits: Limits = {**PER_IP, "trial": {"limit": 1, "window": "60s", "mode": "shadow"}}
    await limiter.ask(limits)
    await limiter.ask(limits)

    await limiter.refused(limits)


async def test_decisions_are_counted_by_limit(limiter: Limiter, metrics: Metrics) -> None:
    await limiter.ask(PER_IP)
    await limiter.ask(PER_IP)
    await limiter.refused(PER_IP)

    decisions = "rate_limit_decisions_total"
    assert sample(metrics, decisions, policy="per-ip", decision="admitted") == 2
    assert sample(metrics, decisions, policy="per-ip", decision="refused") == 1


class Counting(MemoryWindowStore):
    """Counts its round trips."""

    trips = 0

    async def hit(self, hits: Any, now: float) -> Any:
        self.trips += 1
        return await super().hit(hits, now)


async def test_all_limits_of_a_stage_take_one_round_trip(limiter: Limiter) -> None:
    limiter.store = store = Counting()

    await limiter.ask({**PER_KEY, "more": {"limit": 9, "window": "1s", "by": ["key"]}})

    assert store.trips == 1


@pytest.mark.parametrize("wanted", ["local", "allow", "deny"])
async def test_while_the_store_is_away_a_limit_does_as_it_says(
    limiter: Limiter, wanted: str
) -> None:
    limiter.store = AbsentStore()
    settings = RateLimitPolicy.model_validate(
        {"limits": {"per-ip": {**PER_IP["per-ip"], "on_store_error": wanted}}}
    )
    policy = limiter.stage("address", settings)
    handler = compose([ProblemBoundary(), policy], Terminal())
    responses = [await handler(request_of("192.0.2.1", None)) for _ in range(4)]

    expected = {"local": [200, 200, 429, 429], "allow": [200] * 4, "deny": [503] * 4}
    assert [response.status for response in responses] == expected[wanted]
    assert all("Retry-After" in each.headers for each in responses if each.status != 200)


async def test_a_shadow_limit_denies_nothing_while_the_store_is_away(limiter: Limiter) -> None:
    limiter.store = AbsentStore()
    trial = {"limit": 1, "window": "60s", "mode": "shadow", "on_store_error": "deny"}

    assert (await limiter.ask({"trial": trial})).status == 200


async def test_limits_that_fail_apart_are_decided_apart_while_the_store_is_away(
    limiter: Limiter,
) -> None:
    limiter.store = AbsentStore()
    limits: Limits = {
        "open": {"limit": 1, "window": "60s", "by": ["ip"], "on_store_error": "allow"},
        **PER_IP,
    }
    settings = RateLimitPolicy.model_validate({"limits": limits})
    policy = limiter.stage("address", settings)
    for _ in range(2):
        await policy(request_of("192.0.2.1", None), Terminal())

    with pytest.raises(QuotaExceeded) as caught:
        await policy(request_of("192.0.2.1", None), Terminal())
    assert caught.value.extra["violated-policies"] == ["per-ip"]


@pytest.mark.parametrize(
    ("ip", "key", "tightest"), [(5, 3, ("3", "2")), (2, 3, ("2", "1")), (3, 3, ("3", "2"))]
)
async def test_legacy_fields_show_the_tightest_limit(
    limiter: Limiter, ip: int, key: int, tightest: tuple[str, str]
) -> None:
    limits: Limits = {
        "per-ip": {"limit": ip, "window": "60s", "by": ["ip"]},
        "per-key": {"limit": key, "window": "60s", "by": ["key"]},
    }

    headers = (await limiter.ask(limits, legacy_headers=True)).headers

    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == tightest
    assert 60 <= int(headers["X-RateLimit-Reset"]) - limiter.clock.at <= 61


async def test_legacy_fields_are_sent_only_when_asked_for(limiter: Limiter) -> None:
    assert not [name for name in (await limiter.ask(PER_IP)).headers if name.startswith("X-")]


async def test_a_name_beyond_ascii_is_refused_at_the_start(
    metrics: Metrics, clock: FakeClock
) -> None:
    settings = RateLimitPolicy.model_validate({"limits": {"größe": {"limit": 1, "window": "1s"}}})

    with pytest.raises(ValueError, match="ASCII"):
        Limiter(metrics, clock).stage("address", settings)


async def test_an_owners_keys_share_what_counts_by_owner(limiter: Limiter) -> None:
    limits: Limits = {"per-owner": {"limit": 2, "window": "60s", "by": ["owner"]}}
    await limiter.ask(limits, key="k1")
    await limiter.ask(limits, key="k2")

    await limiter.refused(limits, key="k3")


async def test_a_successor_goes_on_with_its_predecessors_quota(limiter: Limiter) -> None:
    for lineage in ("", "k1"):
        await limiter.ask(PER_KEY, key=f"k{1 + bool(lineage)}", lineage=lineage)

    await limiter.refused(PER_KEY, key="k3", lineage="k1")


async def test_by_route_counts_each_route_for_everyone(limiter: Limiter) -> None:
    limits: Limits = {"per-route": {"limit": 1, "window": "60s", "by": ["route"]}}
    await limiter.ask(limits, key="k1", client="192.0.2.1")

    await limiter.ask(limits, route="job-status")
    await limiter.refused(limits, key="k2", client="192.0.2.2")


async def test_a_product_counts_each_combination(limiter: Limiter) -> None:
    limits: Limits = {"each": {"limit": 1, "window": "60s", "by": ["key", "route", "scope"]}}
    for key, route, scope in [
        ("k1", "job-list", "a"),
        ("k2", "job-list", "a"),
        ("k1", "webhooks", "a"),
        ("k1", "job-list", "b"),
    ]:
        await limiter.ask(limits, key=key, route=route, scope=scope)

    await limiter.refused(limits, key="k1", route="job-list", scope="a")


async def test_by_header_counts_each_value_and_keeps_none(limiter: Limiter) -> None:
    limits: Limits = {"tenant": {"limit": 1, "window": "60s", "by": ["header:X-Tenant"]}}
    limiter.store = store = Counting()
    await limiter.ask(limits, headers={"X-Tenant": "one"})
    await limiter.ask(limits, headers={"X-Tenant": "two"})
    await limiter.refused(limits, headers={"x-tenant": "one"}, client="192.0.2.9")

    assert "one" not in str(store._windows.keys())


async def test_without_the_header_the_address_counts(limiter: Limiter) -> None:
    limits: Limits = {"tenant": {"limit": 1, "window": "60s", "by": ["header:X-Tenant"]}}
    await limiter.ask(limits, client="192.0.2.1")
    await limiter.ask(limits, client="192.0.2.2")

    await limiter.refused(limits, client="192.0.2.1")


async def test_a_route_may_cost_more(limiter: Limiter) -> None:
    limits: Limits = {
        "work": {"limit": 10, "window": "60s", "by": ["key"], "cost": {"webhooks": 4}}
    }
    await limiter.ask(limits, route="webhooks")
    response = await limiter.ask(limits, route="job-list")

    assert '"work";r=5;' in response.headers["RateLimit"]
    await limiter.ask(limits, route="webhooks")
    await limiter.refused(limits, route="webhooks")
    assert (await limiter.ask(limits, route="job-list")).status == 200


VARIANTS: dict[str, Any] = {
    "tiers": {"partner": {"per-key": {"limit": 5}}},
    "keys": {"k9": {"per-key": {"limit": 7, "window": "10s"}}},
}


@pytest.mark.parametrize(
    ("key", "tier", "policy"),
    [
        ("k1", None, '"per-key";q=2;w=60'),
        ("k1", "partner", '"per-key";q=5;w=60'),
        ("k1", "unheard-of", '"per-key";q=2;w=60'),
        ("k9", "partner", '"per-key";q=7;w=10'),
    ],
)
async def test_a_tier_and_a_key_may_have_figures_of_their_own(
    limiter: Limiter, key: str, tier: str | None, policy: str
) -> None:
    response = await limiter.ask(PER_KEY, key=key, tier=tier, **VARIANTS)

    assert response.headers["RateLimit-Policy"] == policy


async def test_a_key_that_changes_tier_keeps_its_count(limiter: Limiter) -> None:
    await limiter.ask(PER_KEY, **VARIANTS)
    response = await limiter.ask(PER_KEY, tier="partner", **VARIANTS)

    assert '"per-key";r=3;' in response.headers["RateLimit"]


async def test_the_whole_file_may_be_a_shadow(limiter: Limiter) -> None:
    responses = [await limiter.ask(PER_KEY, mode="shadow") for _ in range(4)]

    assert {response.status for response in responses} == {200}
    assert "RateLimit" not in responses[0].headers


def test_what_would_be_decided_is_told_without_counting(limiter: Limiter) -> None:
    limits: Limits = {
        **PER_KEY,
        "trial": {
            "limit": 9,
            "window": "1h",
            "by": ["owner", "route"],
            "mode": "shadow",
            "cost": {"job-list": 3},
        },
    }
    policy = limiter.stage("key", RateLimitPolicy.model_validate({"limits": limits}))

    assert policy.explain(request_of("192.0.2.1", "k1")) == [
        "per-key: 2 in 60 s for key:k1",
        (
            "trial: 9 in 3600 s for owner:alice|route:job-list, this request counts 3, "
            "shadow: never refuses"
        ),
    ]
