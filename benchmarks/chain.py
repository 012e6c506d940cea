"""What each policy adds to the chain: CPU microseconds a request in this process, without a socket.

A policy's cost is what the chain takes with it, less what it takes without it: the policies are put
before the handler one by one, from the innermost, and each chain is driven as the fast lane does,
by one `send`. Besides, what all of them and the answer's head take for a repeated request whose
answer is stored. All shipped policies are on, with memory stores, one key and the access line. Of
the rounds the least counts: what a busy machine adds is not the policy's.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from multidict import CIMultiDict

from gateway.app.gateway import Gateway
from gateway.core.credential import format_key, hash_key
from gateway.core.message import Handler, NoBody, Request, Response
from gateway.policy.base import Policy
from gateway.policy.build import in_order
from gateway.policy.chain import Chain, compose
from gateway.settings.load import load, load_policies
from gateway.settings.policy import AuthPolicy, KeyEntry, PolicySet
from gateway.telemetry.access import access_writer
from gateway.telemetry.sink import BackgroundStream
from gateway.web.course import HeldCourse, course
from gateway.web.head import parse_head
from gateway.web.lane import Connection

ROOT = Path(__file__).resolve().parents[1]
TARGET_MICROSECONDS = 12.0
REPEATED = "all, of a repeated request"
KEY = format_key(b"the-key-of-the-benchmarks")
HEAD = (
    "GET /api/v1/analysis/0b8f2c1e HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
    f"User-Agent: bench\r\nX-API-Key: {KEY}\r\n\r\n"
).encode()
BODY = b'{"job_id": "0b8f2c1e", "status": "Transcribing"}'
_BATCH = 20
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


def run(rounds: int = 15, requests: int = 2_000) -> dict[str, float]:
    """CPU microseconds a request of each policy, outermost first, and of all of them."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a stream, as stdout is
        stream = BackgroundStream(nowhere)
        try:
            return _measured(stream, rounds, requests)
        finally:
            stream.close()


def show(found: Mapping[str, float]) -> None:
    """The costs as a table."""
    print(f"\n{'policy':28} {'CPU us/request':>14}")
    for name, microseconds in found.items():
        print(f"{name:28} {microseconds:14.2f}")
    print(f"{'target of all':28} {TARGET_MICROSECONDS:14.2f}")


def chains(gateway: Gateway, policies: PolicySet) -> list[tuple[str, Handler]]:
    """The handler alone, then with each policy put before what was there; by the policy's name."""
    handler: Handler = _terminal
    found = [("handler", handler)]
    order: Sequence[Policy] = in_order(policies, gateway.front.parts)
    seen: dict[str, int] = {}
    for policy in reversed(order):
        handler = compose([policy], handler)
        name = _WORD.sub("_", type(policy).__name__).lower()
        seen[name] = seen.get(name, 0) + 1
        found.append((name if seen[name] == 1 else f"{name} {seen[name]}", handler))
    return found


def made(write_line: Any = None) -> tuple[Gateway, PolicySet]:
    """A gateway on the shipped files with one key; it is never started."""
    settings = load(ROOT / "gateway.yaml", {})
    shipped = load_policies(ROOT / "policies")
    entry = KeyEntry(id="bench", hash=hash_key(KEY), owner="bench")
    auth: AuthPolicy = shipped.auth.model_copy(update={"entries": (entry,)})
    # A limit that a benchmark of a second would exceed would measure refusals.
    limits = {
        name: limit.model_copy(update={"limit": 10**9})
        for name, limit in shipped.rate_limits.limits.items()
    }
    rates = shipped.rate_limits.model_copy(update={"limits": limits})
    policies = shipped.model_copy(update={"auth": auth, "rate_limits": rates})
    return Gateway(settings, policies, *([write_line] if write_line else [])), policies


def request(gateway: Gateway) -> Request:
    """A poll of a job's details, as the listener makes one."""
    arrival = gateway.front.adapter.judge(parse_head(HEAD), "192.0.2.1", "http")
    return arrival.request(NoBody(), gateway.front.now())


def drive(coroutine: Coroutine[Any, Any, Response]) -> Response:
    """What a coroutine that waits for nothing returns. Raises RuntimeError for one that waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        response: Response = stop.value
        return response
    coroutine.close()
    raise RuntimeError("a policy waited, though everything it needs is in memory")


def _measured(stream: BackgroundStream, rounds: int, requests: int) -> dict[str, float]:
    settings = load(ROOT / "gateway.yaml", {})
    gateway, policies = made(access_writer(settings.log, stream))
    made_chains = chains(gateway, policies)
    samples: dict[str, list[float]] = {name: [] for name, _ in made_chains}
    # Interleaved, so that a slow second of the machine is everyone's.
    for _ in range(rounds):
        for name, handler in made_chains:
            samples[name].append(_once(gateway, handler, requests))
    least = {name: min(each) for name, each in samples.items()}
    names = [name for name, _ in made_chains]
    costs = {name: max(0.0, least[name] - least[before]) for before, name in pairwise(names)}
    outermost_first = dict(reversed(costs.items()))
    return {
        **outermost_first,
        "all policies": least[names[-1]] - least[names[0]],
        REPEATED: min(_repeated(gateway, policies, requests) for _ in range(rounds)),
    }


def _repeated(gateway: Gateway, policies: PolicySet, requests: int) -> float:
    """What the course of a stored answer takes, ready and given."""
    server = gateway.front.server
    server.chain = Chain(in_order(policies, gateway.front.parts), _storable)
    drive(server.chain.handle(request(gateway)))
    asked = request(gateway)
    response = drive(server.chain.handle(asked))
    with closing(asyncio.new_event_loop()) as loop:  # which nothing runs: the answer is at hand
        held = course(server, asked, HEAD, response, Connection(server, loop))
    if not isinstance(held, HeldCourse):
        raise RuntimeError("a policy has no step for a repeated request")  # noqa: TRY004
    began = time.thread_time_ns()
    for _ in range(requests):
        at = server.now()
        if not held.is_ready(at):
            raise RuntimeError("a policy sees a repeated request itself")
        held.answer(at)
        held.done(server.now())
    return (time.thread_time_ns() - began) / requests / 1000


def _once(gateway: Gateway, handler: Handler, requests: int) -> float:
    spent = 0
    for _ in range(requests // _BATCH):
        asked = [request(gateway) for _ in range(_BATCH)]  # just made, as a listener's are
        began = time.thread_time_ns()
        for each in asked:
            drive(handler(each))
        spent += time.thread_time_ns() - began
    return spent / (requests // _BATCH * _BATCH) / 1000


async def _storable(_: Request) -> Response:
    fields = {"Content-Type": "application/json", "Cache-Control": "max-age=3600"}
    return Response(200, CIMultiDict(fields), BODY)


async def _terminal(_: Request) -> Response:
    return Response(200, CIMultiDict({"Content-Type": "application/json"}), BODY)
