"""Where a body ends, as its bytes come in."""

from __future__ import annotations

import pytest

from gateway.core.error import InvalidRequest
from gateway.web.framing import BodyFraming
from gateway.web.head import Framing, Head


def test_a_body_of_known_length_takes_so_many_bytes() -> None:
    body = BodyFraming(Head(framing=Framing.LENGTH, length=5))
    assert (body.take(b"abc"), body.is_whole()) == (3, False)
    assert (body.take(b"deGET /"), body.is_whole()) == (2, True)
    assert body.take(b"GET /") == 0
    assert body.seen == 5


def test_a_chunked_body_ends_with_its_last_chunk() -> None:
    body = BodyFraming(Head(framing=Framing.CHUNKED))
    assert not body.is_whole()
    assert (body.take(b"1\r\na\r\n0\r\n\r\nGET"), body.is_whole()) == (11, True)
    with pytest.raises(InvalidRequest):
        BodyFraming(Head(framing=Framing.CHUNKED)).take(b"1;x\r\n")


def test_a_request_without_a_body_is_whole() -> None:
    assert BodyFraming(Head()).is_whole()
