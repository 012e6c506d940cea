"""Headers that tell browsers to be careful."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from multidict import CIMultiDict

from gateway.core.message import Response
from gateway.policy.security_headers import SecurityHeaders
from gateway.settings.policy_browser import SecurityHeaderPolicy
from gateway.telemetry.metric import Metrics
from tests.support.fakes import make_request
from tests.support.policy import Terminal, answer, sample

EXPECTED = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
HSTS = "Strict-Transport-Security"


async def through(
    metrics: Metrics | None = None,
    *,
    path: str = "/",
    scheme: str = "https",
    upstream: dict[str, str] | None = None,
    **policy: object,
) -> CIMultiDict[str]:
    request = make_request("GET", path)
    request.scheme = scheme
    settings = SecurityHeaderPolicy.model_validate(policy)
    terminal = Terminal(lambda: answer(headers=upstream or {}))
    response: Response = await SecurityHeaders(settings, metrics or Metrics())(request, terminal)
    return response.headers


async def test_every_answer_carries_exactly_the_list() -> None:
    assert dict(await through()) == EXPECTED


async def test_hsts_goes_out_over_https_alone() -> None:
    headers = await through(scheme="http", upstream={HSTS: "max-age=1"})

    assert dict(headers) == {name: value for name, value in EXPECTED.items() if name != HSTS}


@pytest.mark.parametrize("name", ["Server", "x-powered-by", "X-XSS-Protection"])
async def test_what_tells_of_the_software_is_removed(name: str) -> None:
    assert name not in await through(upstream={name: "x"})


@pytest.mark.parametrize("name", sorted(EXPECTED.keys() - {"Cache-Control"}))
async def test_the_upstreams_value_is_replaced(name: str) -> None:
    headers = await through(upstream={name.lower(): "theirs"})

    assert headers.getall(name) == [EXPECTED[name]]


async def test_an_explicit_cache_control_stays() -> None:
    headers = await through(upstream={"cache-control": "max-age=5"})

    assert headers.getall("Cache-Control") == ["max-age=5"]


async def test_the_file_overrides_in_any_letter_case() -> None:
    headers = await through(headers={"x-frame-options": "SAMEORIGIN", HSTS.lower(): "max-age=1"})

    assert headers.getall("X-Frame-Options") == ["SAMEORIGIN"]
    assert headers.getall(HSTS) == ["max-age=1"]


async def test_a_null_header_is_not_sent_whoever_set_it() -> None:
    off = {"Referrer-Policy": None, HSTS: None}
    headers = await through(headers=off, upstream={"Referrer-Policy": "origin", HSTS: "max-age=1"})

    assert "Referrer-Policy" not in headers
    assert HSTS not in headers


async def test_a_null_cache_control_adds_none_and_removes_none() -> None:
    off = {"Cache-Control": None}

    assert "Cache-Control" not in await through(headers=off)
    headers = await through(headers=off, upstream={"Cache-Control": "max-age=5"})
    assert headers["Cache-Control"] == "max-age=5"


async def test_a_further_header_is_added() -> None:
    assert (await through(headers={"Permissions-Policy": "camera=()"}))["Permissions-Policy"]


async def test_a_removed_header_may_be_set_in_the_file() -> None:
    headers = await through(headers={"Server": "ours"}, upstream={"Server": "theirs"})

    assert headers.getall("Server") == ["ours"]


async def test_switched_off_it_changes_nothing() -> None:
    headers = await through(enabled=False, upstream={"Server": "theirs"})

    assert dict(headers) == {"Server": "theirs"}


def test_answers_that_no_policy_sees_can_carry_them_too() -> None:
    expected = {name: value for name, value in EXPECTED.items() if name != HSTS}

    def headers(**policy: object) -> Mapping[str, str]:
        return SecurityHeaders(SecurityHeaderPolicy.model_validate(policy), Metrics()).headers

    assert headers() == expected
    assert headers(enabled=False) == headers(mode="shadow") == {}
    assert "Cache-Control" not in headers(headers={"Cache-Control": None})


DOCS = {"path": "/docs/*", "headers": {"content-security-policy": "default-src 'self'"}}


@pytest.mark.parametrize(("path", "expected"), [("/docs/x", "'self'"), ("/doc", "'none'")])
async def test_an_override_holds_on_its_paths_alone(path: str, expected: str) -> None:
    headers = await through(path=path, overrides=[DOCS])

    [policy] = headers.getall("Content-Security-Policy")
    assert policy.startswith(f"default-src {expected}")
    assert headers["X-Frame-Options"] == "DENY"


async def test_an_override_comes_over_the_files_own_headers() -> None:
    over = {"path": "/docs", "headers": {"X-Frame-Options": None, "Cache-Control": "no-cache"}}
    headers = await through(
        path="/docs", overrides=[over], headers={"X-Frame-Options": "SAMEORIGIN"}
    )

    assert "X-Frame-Options" not in headers
    assert headers["Cache-Control"] == "no-cache"


async def test_in_shadow_answers_stay_and_what_would_change_is_counted() -> None:
    metrics = Metrics()
    changed = await through(metrics, mode="shadow", upstream={"Server": "theirs"})
    same = await through(metrics, mode="shadow", upstream=EXPECTED)

    assert (dict(changed), dict(same)) == ({"Server": "theirs"}, EXPECTED)
    for decision in ("shadow-changed", "shadow-same"):
        assert sample(metrics, "security_header_decisions_total", decision=decision) == 1
