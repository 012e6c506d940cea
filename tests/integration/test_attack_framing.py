"""Attacks on framing, target, headers and methods, over a raw socket against a running process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from tests.support.echo import Echo
from tests.support.lane import Reply, Wire, connected, get
from tests.support.system import KEY, GatewayProcess, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST = "api.example"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
CHUNKED = "Transfer-Encoding: chunked"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    upstream: Echo, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    settings: dict[str, Any] = {
        "server": {
            "hosts": [HOST, "*.example.org"],
            "trusted_proxies": [],
            "max_body": 4096,
            "max_header": "8KiB",
        },
        "health": {"interval": "1h"},
    }
    url = f"http://127.0.0.1:{upstream.port}"
    async with GatewayProcess(tmp_path_factory.mktemp("gw"), url, **settings) as process:
        yield process


def port(gateway: GatewayProcess) -> int:
    return int(gateway.public.rpartition(":")[2])


def post(*lines: str, body: bytes = b"", target: str = "/a") -> bytes:
    fields = "".join(f"{each}\r\n" for each in (f"Host: {HOST}", f"X-API-Key: {KEY}", *lines))
    return f"POST {target} HTTP/1.1\r\n{fields}\r\n".encode("latin-1") + body


def keyed(target: str = "/a", *lines: str, method: str = "GET", host: str = HOST) -> bytes:
    return get(target, f"X-API-Key: {KEY}", *lines, method=method, host=host)


async def refused(wire: Wire, status: int) -> Reply:
    """The one answer, a problem with every header of ours; the connection ends after it."""
    reply = await wire.reply()
    assert (reply.status, reply.get("Content-Type")) == (status, "application/problem+json")
    assert orjson.loads(reply.body)["status"] == status
    assert reply.get("Connection") == "close"
    assert {name: reply.get(name) for name in HEADERS} == HEADERS
    assert reply.get("X-Request-ID")
    assert reply.get("Server") is None
    assert await wire.ended()
    return reply


async def logged(gateway: GatewayProcess, reply: Reply) -> None:
    """Its access line is written."""
    request_id = reply.get("X-Request-ID")

    async def is_there() -> bool:
        lines = [orjson.loads(each) for each in gateway.log.splitlines() if each.startswith("{")]
        mine = [each for each in lines if each.get("request_id") == request_id]
        return [each["status"] for each in mine if each["event"] == "request"] == [reply.status]

    await eventually("the access line is written", is_there)


FRAMING = {
    "length-and-chunked": post("Content-Length: 5", CHUNKED, body=b"0\r\n\r\nG"),
    "chunked-and-length": post(CHUNKED, "Content-Length: 5", body=b"0\r\n\r\nG"),
    "two-lengths": post("Content-Length: 5", "Content-Length: 6", body=b"hello"),
    "the-same-length-twice": post("Content-Length: 5", "Content-Length: 5", body=b"hello"),
    "list-of-lengths": post("Content-Length: 5, 5", body=b"hello"),
    "xchunked": post("Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunked-not-last": post("Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "chunked-twice": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "identity-and-chunked": post("Transfer-Encoding: identity, chunked", body=b"0\r\n\r\n"),
    "chunked-with-vertical-tab": post("Transfer-Encoding:\x0bchunked", body=b"0\r\n\r\n"),
    "space-before-colon": post("Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    "chunked-in-1.0": post(CHUNKED, body=b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "plus-length": post("Content-Length: +5", body=b"hello"),
    "unicode-length": post("Content-Length: \xb2", body=b"hello"),
    "underscored-length": post("Content-Length: 1_0", body=b"hello"),
    "hexadecimal-length": post("Content-Length: 0x5", body=b"hello"),
    "empty-length": post("Content-Length:", body=b"hello"),
    "bare-lf-head": b"GET /a HTTP/1.1\nHost: api.example\n\n",
    "bare-lf-field": post("X-A: 1\nX-B: 2"),
    "bare-cr-field": post("X-A: 1\rX-B: 2"),
    "obs-fold": post("X-A: 1\r\n Transfer-Encoding: chunked"),
    "nul-in-field": post("X-A: a\x00b"),
    "leading-space": post(" X-A: 1"),
    "chunk-extension": post(CHUNKED, body=b"3;x=y\r\nabc\r\n0\r\n\r\n"),
    "chunk-trailer": post(CHUNKED, body=b"3\r\nabc\r\n0\r\nX-A: 1\r\n\r\n"),
    "chunk-bare-lf": post(CHUNKED, body=b"3\nabc\n0\n\n"),
    "chunk-size-signed": post(CHUNKED, body=b"+3\r\nabc\r\n0\r\n\r\n"),
    "chunk-size-overflow": post(CHUNKED, body=b"ffffffffffffffff3\r\nabc\r\n"),
    "chunk-longer-than-said": post(CHUNKED, body=b"3\r\nabcd\r\n0\r\n\r\n"),
    "two-hosts": keyed("/a", "Host: other.example"),
    "no-host": f"GET /a HTTP/1.1\r\nX-API-Key: {KEY}\r\n\r\n".encode(),
    "host-with-path": keyed(host="api.example/x"),
    "host-with-user": keyed(host="user@api.example"),
    "http-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "space-in-target": keyed("/a b"),
    "raw-bytes-in-target": keyed("/a").replace(b"/a", b"/caf\xe9"),
    "fragment": keyed("/a#b"),
}


@pytest.mark.parametrize("raw", FRAMING.values(), ids=FRAMING.keys())
async def test_ambiguous_framing_ends_at_the_gateway(
    gateway: GatewayProcess, echo: Echo, raw: bytes
) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(raw + keyed("/smuggled"))
        reply = await refused(wire, 400)

    assert echo.forwarded == []
    await logged(gateway, reply)


async def test_bad_chunks_after_good_ones_end_the_connection(
    gateway: GatewayProcess, echo: Echo
) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(post(CHUNKED, body=b"3\r\nabc\r\n"))
        await wire.send(b"3;x=y\r\nabc\r\n0\r\n\r\n" + keyed("/smuggled"))
        assert (await wire.reply()).status == 400
        assert await wire.ended()

    assert echo.forwarded == []


# --- target ------------------------------------------------------------------------------------


TARGETS = [
    "/a%2fb",
    "/a%5cb",
    "/a%00b",
    "/a;b",
    "/../a",
    "/a/../../b",
    "/a%252fb",
    "/%2e%2e/a",
    "a",
]


@pytest.mark.parametrize("target", TARGETS)
async def test_an_ambiguous_target_is_refused(
    gateway: GatewayProcess, echo: Echo, target: str
) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(keyed(target))
        await refused(wire, 400)
    assert echo.forwarded == []


@pytest.mark.parametrize(
    ("target", "forwarded"),
    [
        ("/x/../a", "/a"),
        ("/./a", "/a"),
        ("/x/%2e%2E/a", "/a"),
        ("/a?next=/../b", "/a?next=/../b"),
        ("http://api.example/x/../a?b", "/a?b"),
        ("/%61", "/%61"),
    ],
)
async def test_what_was_matched_is_what_is_forwarded(
    gateway: GatewayProcess, echo: Echo, target: str, forwarded: str
) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(keyed(target))
        assert (await wire.reply()).status == 200
    assert echo.forwarded[-1].target == forwarded


async def test_a_dot_segment_reaches_no_protected_path(gateway: GatewayProcess, echo: Echo) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(keyed("/public/../api/v1/queue/pause", method="POST"))
        assert (await wire.reply()).status == 403  # it needs the scope `admin`, however spelled
    assert echo.forwarded == []


@pytest.mark.parametrize("host", ["evil.example", "api.example.evil.com", "example.org", "[::1]"])
async def test_a_foreign_host_is_misdirected(
    gateway: GatewayProcess, echo: Echo, host: str
) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(keyed(host=host))
        await refused(wire, 421)
    assert echo.forwarded == []


async def test_of_an_absolute_target_the_authority_counts(
    gateway: GatewayProcess, echo: Echo
) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(keyed("http://evil.example/a"))
        await refused(wire, 421)
    async with connected(port(gateway)) as wire:
        await wire.send(keyed("http://a.example.org/a", host="evil.example"))
        assert (await wire.reply()).status == 200
    assert [each.headers["X-Forwarded-Host"] for each in echo.forwarded] == ["a.example.org"]


@pytest.mark.parametrize("path", ["/drain", "/health/ready", "/console", "/health/live"])
async def test_admin_paths_are_not_there(gateway: GatewayProcess, echo: Echo, path: str) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(keyed(path))
        await refused(wire, 404)
    assert echo.forwarded == []


# --- headers and methods -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["X_Forwarded_For", "X_API_Key", "Content_Length", "X-Real_IP"])
async def test_a_header_with_an_underscore_is_refused(
    gateway: GatewayProcess, echo: Echo, name: str
) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(keyed("/a", f"{name}: 6.6.6.6"))
        await refused(wire, 400)
    assert echo.forwarded == []


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
async def test_method_overrides_are_dropped(
    gateway: GatewayProcess, echo: Echo, header: str
) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(keyed("/a", f"{header}: DELETE"))
        assert (await wire.reply()).status == 200
    assert (echo.forwarded[-1].method, header in echo.forwarded[-1].headers) == ("GET", False)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "BREW", "get"])
async def test_other_methods_are_not_allowed(
    gateway: GatewayProcess, echo: Echo, method: str
) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(keyed("/a", method=method))
        reply = await refused(wire, 405)
    assert reply.get("Allow") == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    assert echo.forwarded == []


async def test_a_nominated_key_counts_as_absent(gateway: GatewayProcess, echo: Echo) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(keyed("/a", "Connection: X-Api-Key"))
        assert (await wire.reply()).status == 401
    assert echo.forwarded == []


async def test_two_keys_are_refused(gateway: GatewayProcess, echo: Echo) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(keyed("/a", f"X-API-Key: {KEY}"))
        assert (await wire.reply()).status == 400
    assert echo.forwarded == []


async def test_an_untrusted_peer_cannot_say_who_it_is(gateway: GatewayProcess, echo: Echo) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(keyed("/a", "X-Forwarded-For: 6.6.6.6", "Forwarded: for=6.6.6.6"))
        assert (await wire.reply()).status == 200
    assert echo.forwarded[-1].headers.getall("X-Forwarded-For") == ["127.0.0.1"]
