"""python -m benchmarks.policies: CPU microseconds of each policy on who may do what, how often.

Each is run alone before a handler that answers at once, with the policies as they are shipped and
stores in memory; what the handler costs is taken off. The least of several rounds is printed: what
disturbs a measurement only ever adds to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from multidict import CIMultiDict

from gateway.core.credential import Key, format_key, hash_key
from gateway.core.message import Handler, NoBody, Request, Response
from gateway.core.route import Match, Route
from gateway.policy.admission import Admission
from gateway.policy.auth import Auth
from gateway.policy.base import Policy
from gateway.policy.key_source import KeySource
from gateway.policy.rate_limit import RateLimit
from gateway.policy.request_id import RequestId
from gateway.policy.security_headers import SecurityHeaders
from gateway.policy.shared_window import SharedWindows
from gateway.settings.load import load_policies
from gateway.settings.model import Admission as AdmissionSettings
from gateway.store.memory.window import MemoryWindowStore
from gateway.telemetry.metric import Metrics
from tests.support.policy import NoKeys

ROUNDS, REQUESTS = 7, 20_000
SECRET = format_key(b"a key that the benchmark uses")
KEY = Key("bench", hash_key(SECRET), "bench", frozenset({"jobs:read", "jobs:write"}))
STATUS = Match(Route("job-status", "/api/v1/analysis/{job_id}/status"), {"job_id": "j1"})
CREATE = Match(Route("job-create", "/api/v1/analysis"))


class _NoJobs:
    active_count = 0
    active_jobs: Sequence[object] = ()
    durations: Sequence[float] = ()


async def _answer(_request: Request) -> Response:
    return Response(200)


def _request(match: Match, *, known: bool) -> Request:
    return Request(
        method="GET",
        target="/api/v1/analysis/j1/status",
        path="/api/v1/analysis/j1/status",
        query="",
        headers=CIMultiDict(
            {"Host": "gateway", "X-API-Key": SECRET, "Accept": "*/*", "User-Agent": "bench"}
        ),
        body=NoBody(),
        match=match,
        client="192.0.2.1",
        scheme="http",
        host="gateway",
        received_at=0.0,
        request_id="bench-1",
        principal=KEY.principal if known else None,
    )


def _seconds(handler: Handler, match: Match, *, known: bool) -> float:
    """The least CPU time of one request."""
    best = float("inf")
    for _ in range(ROUNDS):
        requests = [_request(match, known=known) for _ in range(REQUESTS)]
        begin = time.process_time()
        for request in requests:
            try:
                handler(request).send(None)
            except StopIteration:
                continue
        best = min(best, (time.process_time() - begin) / REQUESTS)
    return best


def _before(policy: Policy) -> Handler:
    async def handle(request: Request) -> Response:
        return await policy(request, _answer)

    return handle


def _policies() -> list[tuple[str, Policy, Match, bool]]:
    """Name, policy, the route it is asked on, and whether the caller is known by then."""
    policies = load_policies(Path(__file__).resolve().parents[1] / "policies")
    limits = policies.rate_limits
    open_limits = limits.model_copy(
        update={
            "limits": {
                name: limit.model_copy(update={"limit": 10**9})
                for name, limit in limits.limits.items()
            }
        }
    )
    metrics, now = Metrics(), time.time
    keys = KeySource(NoKeys(), metrics, now)
    keys.listed = {KEY.sha256: replace(KEY)}
    windows = SharedWindows(MemoryWindowStore(), MemoryWindowStore(), metrics, now)
    admission = Admission(AdmissionSettings(max_concurrent=10), _NoJobs(), metrics, now)  # type: ignore[arg-type]  # it has no jobs
    address = RateLimit(open_limits, "address", windows, metrics, now)
    return [
        ("request id", RequestId("bench-"), STATUS, False),
        ("security headers", SecurityHeaders(policies.security_headers, metrics), STATUS, False),
        ("limits by address, none applies", address, STATUS, False),
        ("limits by address", address, CREATE, False),
        ("key", Auth(policies.auth, keys, metrics, now), STATUS, False),
        ("limits by key", RateLimit(open_limits, "key", windows, metrics, now), STATUS, True),
        ("admission", admission, CREATE, True),
    ]


def main(show: Callable[[str], None] = print) -> None:
    """Measure and print a line a policy."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    floor = _seconds(_answer, STATUS, known=False)
    for name, policy, match, known in _policies():
        cost = _seconds(_before(policy), match, known=known) - floor
        show(f"{name:32} {cost * 1e6:6.2f} us")


if __name__ == "__main__":
    main()
