"""The arithmetic and the set-up of the benchmarks; their figures are no test's business."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import yaml

from benchmarks import chain, load, origin, peer, side_by_side
from benchmarks.ledger import quantile
from benchmarks.soak import vitals
from benchmarks.soak.outage import AFTERMATH_SECONDS, Outages
from benchmarks.watch import measure
from benchmarks.watch.upstream import Api as WatchedApi
from gateway.core.message import Response
from gateway.settings.load import load as load_settings
from gateway.settings.load import load_policies

WRK = """Running 1s test @ http://127.0.0.1:1/
  Latency Distribution
     50%  574.00us
     75%    1.00ms
     90%    1.05ms
     99%    3.00ms
  30650 requests in 1.10s, 20.52MB read
Requests/sec:  27863.64
"""


def row(cpu: float, p50: float) -> dict[str, float]:
    return {"cpu_microseconds": cpu, "p50_seconds": p50}


def test_what_wrk_says_is_read_in_seconds() -> None:
    assert load.parse(WRK) == load.Load(30650, 1.1, 0.000574, 0.003)


@pytest.mark.parametrize(
    "said", ["", WRK + "  Non-2xx or 3xx responses: 1\n", WRK + "  Socket errors: connect 1\n"]
)
def test_a_load_that_went_wrong_counts_for_nothing(said: str) -> None:
    with pytest.raises(RuntimeError):
        load.parse(said)


def test_ratios_are_ours_over_theirs() -> None:
    rows = {"origin": row(5, 0.1), "gateway": row(20, 0.3), "envoy": row(40, 0.2)}
    found = {"proxied": rows, "cached": rows, "one connection": rows}

    assert side_by_side.ratios(found) == {
        "proxied_vs_envoy": 0.5,
        "cached_vs_envoy": 0.5,
        "added_p50_vs_envoy": 2.0,
    }


def test_the_gateway_under_measurement_has_the_shipped_policies(tmp_path: Path) -> None:
    command = peer.GATEWAY.prepare(peer.Place(tmp_path, port=1, origin=2))

    settings = load_settings(Path(command[-1]), {})
    policies = load_policies(tmp_path / "policies")
    shipped = load_policies(Path("policies"))
    assert settings.upstream.url == "http://127.0.0.1:2"
    assert policies.security_headers == shipped.security_headers
    assert policies.cache == shipped.cache
    assert policies.rate_limits.limits.keys() == shipped.rate_limits.limits.keys()
    assert [entry.id for entry in policies.auth.entries] == ["bench"]


def test_envoys_file_is_filled_in_whole(tmp_path: Path) -> None:
    path = peer.rendered("envoy.yaml", peer.Place(tmp_path, port=18080, origin=19090))

    (listener,) = yaml.safe_load(path.read_text())["static_resources"]["listeners"]
    assert listener["address"]["socket_address"]["port_value"] == 18080
    assert "$" not in path.read_text()


def test_the_origins_answers_announce_their_length() -> None:
    head, _, body = origin.answer("no-store").partition(b"\r\n\r\n")

    assert len(body) == origin.BODY_BYTES
    assert f"content-length: {len(body)}".encode() in head


def test_every_policy_is_measured_and_lets_the_request_through() -> None:
    gateway, policies = chain.made()

    chains = chain.chains(gateway, policies)

    names = [name for name, _ in chains]
    assert {"cors", "auth", "validation", "rate_limit 2", "response_cache"} <= set(names)
    for _, handler in chains:
        response = chain.drive(handler(chain.request(gateway)))
        assert response.status == 200


def test_a_policy_that_waits_is_told() -> None:
    async def wait() -> Response:
        await asyncio.sleep(0)
        return Response(200)

    with pytest.raises(RuntimeError, match="waited"):
        chain.drive(wait())


def test_an_outage_explains_what_it_may_cause_while_it_lasts_and_a_little_later() -> None:
    outages = Outages()
    early = time.monotonic()
    with outages.during(frozenset({"503"})):
        assert outages.explain("503", early)
        assert not outages.explain("500", early)
    ended = time.monotonic()

    assert outages.explain("503", ended)
    assert not outages.explain("503", ended + AFTERMATH_SECONDS + 1)


def test_before_an_outage_nothing_is_explained() -> None:
    assert not Outages().explain("503", 0.0)


def test_a_process_may_grow_by_what_the_cache_stores_and_by_no_more() -> None:
    before = vitals.Held(memory_bytes=80 * 2**20, cached_bytes=0, descriptors=30)
    stores = vitals.Held(110 * 2**20, cached_bytes=30 * 2**20, descriptors=34)
    leaks = vitals.Held(110 * 2**20, cached_bytes=0, descriptors=40)

    assert vitals.growth(before, stores) == []
    assert vitals.growth(before, leaks) == [
        "memory grew by 31457280 bytes, stored answers apart: a leak",
        "descriptors grew by 10: a leak",
    ]


def test_quantile_is_of_values_in_any_order() -> None:
    assert [quantile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99)] == [1.0, 2.0, 3.0]
    assert quantile([], 0.5) == 0.0


def test_requests_of_watching_are_counted_in_the_whole_seconds_that_were_measured() -> None:
    asked = {
        "status": {"9": 99, "10": 99, "11": 5, "12": 3, "13": 7, "14": 99},
        "list": {"11": 0, "12": 1, "14": 1},
    }
    found = measure.figures({"since": 10.4, "until": 14.2, "cpu_share": 0.5}, asked)

    assert found == {
        "cpu_share": 0.5,
        "requests_per_second": pytest.approx(16 / 3),
        "lists_per_second": pytest.approx(1 / 3),
        "max_over_mean": pytest.approx(7 / (16 / 3)),
    }


def test_jobs_of_the_upstream_to_be_watched_move_one_after_the_other() -> None:
    api = WatchedApi(4, 100.0, started_at=1000.0)

    def stages(now: float) -> list[float]:
        return [float(str(api.job(f"job-{n}", now)["stage"])) for n in range(4)]

    assert stages(1000.0) == [1000.0, 925.0, 950.0, 975.0]
    assert stages(1030.0) == [1000.0, 1025.0, 950.0, 975.0]
    assert stages(1210.0) == [1200.0, 1125.0, 1150.0, 1175.0]
