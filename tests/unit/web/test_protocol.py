"""What is used of aiohttp below its public surface: a test that fails here names a change."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler


async def handler(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response()


async def test_a_protocol_is_made_as_before() -> None:
    loop = asyncio.get_running_loop()
    protocol = RequestHandler(
        web.Server(handler),
        loop=loop,
        keepalive_timeout=1,
        access_log=None,  # type: ignore[arg-type] # as web.Server passes it
        auto_decompress=False,
        max_line_size=8190,
        max_field_size=8190,
        max_headers=128,
    )

    assert protocol._reading_paused is False


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("connection_made", ["self", "transport"]),
        ("connection_lost", ["self", "exc"]),
        ("data_received", ["self", "data"]),
        ("pause_writing", ["self"]),
        ("resume_writing", ["self"]),
        ("handle_error", ["self", "request", "status", "exc", "message"]),
    ],
)
def test_what_is_called_takes_what_it_took(name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(RequestHandler, name)).parameters) == parameters


def test_the_transport_is_all_that_it_closes() -> None:
    assert "self.transport.close()" in inspect.getsource(RequestHandler.start)
    assert "self.transport.close()" in inspect.getsource(RequestHandler.force_close)
