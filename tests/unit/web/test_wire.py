"""A response's head as bytes."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.core.message import Response
from gateway.web.wire import HttpDate, chunk, has_body, is_chunked, render_head
from tests.support.policy import stream

DATE = "Thu, 10 Sep 2026 00:26:40 GMT"


def rendered(response: Response, method: str = "GET", *, close: bool = False) -> str:
    return render_head(method, response, DATE, close=close).decode("utf-8", "surrogateescape")


def test_a_whole_answer_has_its_length_and_date() -> None:
    headers = CIMultiDict([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Content-Length", "9")])
    assert rendered(Response(200, headers, b"hello")) == (
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 5\r\n"
        f"Date: {DATE}\r\n\r\n"
    )


def test_a_date_of_the_upstreams_stays() -> None:
    assert rendered(Response(200, CIMultiDict({"Date": "x"}))).count("Date") == 1


def test_the_connection_ends_where_it_is_told_to() -> None:
    assert "\r\nConnection: close\r\n" in rendered(Response(200), close=True)
    assert "Connection" not in rendered(Response(200))


@pytest.mark.parametrize("status", [204, 304, 101])
def test_what_has_no_body_has_no_length(status: int) -> None:
    text = rendered(Response(status, CIMultiDict({"Content-Length": "7"})))
    assert "Content-Length" not in text
    assert not has_body("GET", status)


def test_an_answer_to_head_announces_what_it_does_not_send() -> None:
    assert "Content-Length: 7\r\n" in rendered(
        Response(200, CIMultiDict({"Content-Length": "7"})), "HEAD"
    )
    assert "Content-Length: 4\r\n" in rendered(Response(404, CIMultiDict(), b"none"), "HEAD")
    assert "Content-Length" not in rendered(Response(200), "HEAD")


def test_a_stream_of_unknown_length_is_chunked() -> None:
    unknown = Response(200, CIMultiDict(), stream(b"x"))
    assert is_chunked("GET", unknown)
    assert "\r\nTransfer-Encoding: chunked\r\n" in rendered(unknown)
    assert "Transfer-Encoding" not in rendered(Response(200, CIMultiDict(), stream(b"x")), "HEAD")
    known = Response(200, CIMultiDict({"Content-Length": "1"}), stream(b"x"))
    assert not is_chunked("GET", known)
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\rb"])
def test_a_field_cannot_break_out_of_its_line(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        rendered(Response(200, CIMultiDict({"X-A": value})))
    with pytest.raises(ValueError, match="line break"):
        rendered(Response(200, CIMultiDict(), b"", value))


def test_bytes_beyond_ascii_leave_as_they_came() -> None:
    text = b"caf\xc3\xa9 \xff".decode("utf-8", "surrogateescape")
    head = render_head("GET", Response(200, CIMultiDict({"X-A": text})), DATE, close=False)
    assert b"X-A: caf\xc3\xa9 \xff\r\n" in head


def test_an_unknown_status_has_no_reason() -> None:
    assert rendered(Response(599)).startswith("HTTP/1.1 599 \r\n")
    assert rendered(Response(200, reason="As It Is")).startswith("HTTP/1.1 200 As It Is\r\n")


def test_the_date_is_that_of_the_second() -> None:
    date = HttpDate()
    assert date(1_789_000_000.9) == DATE
    assert date(1_789_000_001.0) == "Thu, 10 Sep 2026 00:26:41 GMT"
