"""What a request's head says, and what is refused rather than guessed at."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.web.head import METHODS, Framing, Head, Likeness, parse_head


def head(*lines: str, line: str = "GET /a HTTP/1.1", host: str = "Host: api.example\r\n") -> Head:
    fields = "".join(f"{each}\r\n" for each in lines)
    return parse_head(f"{line}\r\n{host}{fields}\r\n".encode("latin-1"))


def test_a_simple_head_is_understood() -> None:
    found = head("Accept: */*", "X-Empty:", "X-Wide:\t a  b \t")

    assert (found.method, found.target, found.host) == ("GET", "/a", "api.example")
    assert list(found.headers.items()) == [
        ("Host", "api.example"),
        ("Accept", "*/*"),
        ("X-Empty", ""),
        ("X-Wide", "a  b"),
    ]
    assert (found.keep_alive, found.is_simple, found.error) == (True, True, None)


@pytest.mark.parametrize(
    "lines",
    [
        ("Origin: https://a.example",),
        ("Connection: close",),
        ("Connection: X-Api-Key",),
        ("Upgrade: websocket",),
        ("Expect: 100-continue",),
        ("TE: trailers",),
        ("Content-Length: 3",),
        ("Transfer-Encoding: chunked",),
    ],
)
def test_what_is_not_simple_takes_the_full_lane(lines: tuple[str, ...]) -> None:
    found = head(*lines)
    assert (found.is_simple, found.error) == (False, None)


EVENTS = "Accept: text/event-stream"


@pytest.mark.parametrize(
    "lines",
    [
        (EVENTS, "Origin: https://a.example", "Connection: keep-alive"),
        (EVENTS, "Connection: Keep-Alive", "Cache-Control: no-cache"),
        (EVENTS, "Origin: null"),
    ],
)
def test_a_page_that_streams_takes_the_fast_lane(lines: tuple[str, ...]) -> None:
    assert head(*lines).is_simple


@pytest.mark.parametrize(
    "lines",
    [
        (EVENTS, "Connection: keep-alive, X-Api-Key"),
        (EVENTS, "Connection: close"),
        (EVENTS, "Connection: keep-alive", "TE: trailers"),
        (EVENTS, "Origin: https://a.example", "Upgrade: websocket"),
        ("Accept: */*", "Connection: keep-alive"),
    ],
)
def test_what_is_unusual_in_a_stream_takes_the_full_lane(lines: tuple[str, ...]) -> None:
    assert not head(*lines).is_simple


def test_methods_with_a_body_and_old_versions_take_the_full_lane() -> None:
    assert not head(line="POST /a HTTP/1.1").is_simple
    assert not head(line="GET /a HTTP/1.0").is_simple


@pytest.mark.parametrize(
    ("line", "host", "target"),
    [
        ("GET http://other.example:81/a?b HTTP/1.1", "other.example:81", "/a?b"),
        ("GET HTTPS://other.example HTTP/1.1", "other.example", "/"),
        ("GET http://other.example?x HTTP/1.1", "other.example", "/?x"),
    ],
)
def test_an_absolute_target_names_the_host(line: str, host: str, target: str) -> None:
    found = head(line=line)
    assert (found.host, found.headers["Host"], found.target) == (host, host, target)


@pytest.mark.parametrize(
    "line",
    [
        "GET  /a HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a HTTP/2.0",
        "GET /a HTTP/1.1 ",
        "GET /a http/1.1",
        "GET /caf\xe9 HTTP/1.1",
        "GET /a\x00 HTTP/1.1",
        "GET /a",
        "G@T /a HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http://u:p@h/a HTTP/1.1",
    ],
)
def test_a_malformed_request_line_breaks_the_connection(line: str) -> None:
    found = head(line=line)
    assert found.error is not None
    assert (found.error.status, found.breaks, found.keep_alive) == (400, True, False)


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 3", "Transfer-Encoding: chunked"),
        ("Content-Length: 3", "Content-Length: 4"),
        ("Content-Length: 3", "Content-Length: 3"),
        ("Content-Length: 3, 3",),
        ("Content-Length: +5",),
        ("Content-Length: -5",),
        ("Content-Length: 0x5",),
        ("Content-Length: 5_0",),
        ("Content-Length:",),
        ("Content-Length: \xb2",),
        ("Content-Length: " + "9" * 19,),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked, gzip",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: identity",),
        ("X-A: 1\r\n folded",),
        ("X-A: 1\nX-B: 2",),
        ("X-A: 1\rX-B: 2",),
        ("X-A: a\x00b",),
        ("X-A: a\x7fb",),
        ("X-A : 1",),
        (" X-A: 1",),
        (": 1",),
        ("X-A",),
        ("X(A): 1",),
        ("X_Forwarded_For: 6.6.6.6",),
        ("Host: other.example",),
    ],
)
def test_what_could_be_read_in_two_ways_breaks_the_connection(lines: tuple[str, ...]) -> None:
    found = head(*lines, line="POST /a HTTP/1.1")
    assert found.error is not None
    assert (found.error.status, found.breaks) == (400, True)


def test_a_host_must_be_there_and_be_one() -> None:
    assert head(host="").breaks
    assert head(host="Host: a b\r\n").breaks
    assert head(host="Host: a/b\r\n").breaks
    assert head(host="Host: a@b\r\n").breaks
    assert not head(host="", line="GET /a HTTP/1.0").breaks


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "get"])
def test_other_methods_are_not_passed(method: str) -> None:
    found = head(line=f"{method} /a HTTP/1.1")
    assert found.error is not None
    assert found.error.status == 405
    assert found.error.headers["Allow"] == ", ".join(METHODS)


def test_a_method_that_is_listed_passes() -> None:
    raw = b"M-SEARCH /a HTTP/1.1\r\nHost: x\r\n\r\n"

    assert parse_head(raw, (*METHODS, "M-SEARCH")).error is None


def test_another_expectation_fails() -> None:
    found = head("Expect: 200-ok", "Content-Length: 1", line="POST /a HTTP/1.1")
    assert found.error is not None
    assert found.error.status == 417


def test_method_overrides_are_dropped() -> None:
    found = head("X-HTTP-Method-Override: DELETE", "X-Method-Override: PUT", "X-HTTP-Method: PUT")
    assert list(found.headers) == ["Host"]


def test_framing_tells_how_a_body_ends() -> None:
    post = "POST /a HTTP/1.1"
    assert head("Content-Length: 12", line=post).length == 12
    assert head("Content-Length: 0", line=post).framing is Framing.NONE
    assert head("Transfer-Encoding: Chunked", line=post).framing is Framing.CHUNKED


@pytest.mark.parametrize(
    ("line", "connection", "keeps"),
    [
        ("GET / HTTP/1.1", "", True),
        ("GET / HTTP/1.1", "Close", False),
        ("GET / HTTP/1.1", "x, close", False),
        ("GET / HTTP/1.0", "", False),
        ("GET / HTTP/1.0", "Keep-Alive", True),
        ("GET / HTTP/1.0", "keep-alive, close", False),
    ],
)
def test_connections_last_as_the_client_says(line: str, connection: str, keeps: bool) -> None:  # noqa: FBT001
    fields = (f"Connection: {connection}",) if connection else ()
    assert head(*fields, line=line).keep_alive is keeps


def test_a_websocket_is_recognised() -> None:
    upgrade = ("Connection: keep-alive, Upgrade", "Upgrade: WebSocket")
    assert head(*upgrade).is_upgrade
    assert not head(upgrade[1]).is_upgrade
    assert not head(*upgrade, line="POST / HTTP/1.1").is_upgrade
    assert not head("Connection: upgrade", "Upgrade: h2c").is_upgrade


def test_too_many_fields_are_refused() -> None:
    assert head(*(f"X-{n}: 1" for n in range(200))).breaks


# --- likeness ----------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["X-Poll", "x-poll", "Accept", "Host", "TE", "X_Poll", "X-Poll ", "Origin", "X-Real-IP", ""]
)
VALUES = st.text(st.sampled_from("ab1, \t\r\n\x01\x7f:é"), max_size=6)
FIELDS = st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=3)
READ = frozenset({"accept"})


def raw_of(fields: list[tuple[str, str]], host: str = "x") -> bytes:
    lines = "".join(f"{name}:{value}\r\n" for name, value in fields)
    return f"GET /a HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode("latin-1")


@given(first=FIELDS, values=st.lists(VALUES, min_size=3, max_size=3), renamed=st.booleans())
@example(first=[("X-Poll", "1")], values=["2", "", ""], renamed=False)
def test_a_head_that_is_like_another_is_read_alike(
    first: list[tuple[str, str]],
    values: list[str],
    renamed: bool,  # noqa: FBT001
) -> None:
    names = [name.swapcase() if renamed else name for name, _ in first]
    other = raw_of([*zip(names, values, strict=False)])
    one, another = parse_head(raw_of(first)), parse_head(other)
    if one.error is not None or Likeness(raw_of(first), READ).changes(other) is None:
        return

    assert another.error is None
    assert (another.is_simple, another.host) == (one.is_simple, one.host)
    for name in ("Accept", "Host", "TE", "Origin", "X-Real-IP"):
        assert another.headers.getall(name, ()) == one.headers.getall(name, ())


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        (raw_of([("X-Poll", " 2"), ("Accept", " a")]), True),
        (raw_of([("X-Poll", ""), ("Accept", " a")]), True),
        (raw_of([("X-Poll", " 1"), ("Accept", " b")]), False),
        (raw_of([("X-Other", " 1"), ("Accept", " a")]), False),
        (raw_of([("Accept", " a"), ("X-Poll", " 1")]), False),
        (raw_of([("X-Poll", " 2"), ("Accept", " a")], host="y"), False),
        (raw_of([("X-Poll", " 2")]), False),
        (raw_of([("X-Poll", " 2\x01"), ("Accept", " a")]), False),
        (raw_of([("X-Poll", " 2"), ("Accept", " a")]) + b"GET", False),
        (raw_of([("X-Poll", " 2"), ("Accept", " a")]) * 2, False),
        (raw_of([("X-Poll", " 2"), ("Accept", " a")])[:-2], False),
    ],
)
def test_heads_are_alike_that_differ_in_what_is_not_read(other: bytes, *, alike: bool) -> None:
    first = raw_of([("X-Poll", " 1"), ("Accept", " a")])

    assert (Likeness(first, READ).changes(other) is not None) is alike
