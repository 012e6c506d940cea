"""What the lanes use of aiohttp below its public surface: a test that fails here names a change."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.web_protocol import RequestHandler


async def handler(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response()


async def test_a_connection_is_made_as_before() -> None:
    server = web.Server(handler, access_log=None)
    connection = server()

    assert isinstance(connection, RequestHandler)
    assert server._loop is asyncio.get_running_loop()
    assert list(inspect.signature(web.Server.__call__).parameters) == ["self"]
    parameters = inspect.signature(RequestHandler.__init__).parameters
    assert list(parameters)[:3] == ["self", "manager", "loop"]
    assert {"keepalive_timeout", "max_line_size", "max_field_size", "max_headers"} <= {*parameters}
    assert connection._reading_paused is False
    assert connection._loop is asyncio.get_running_loop()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("connection_made", ["self", "transport"]),
        ("connection_lost", ["self", "exc"]),
        ("data_received", ["self", "data"]),
        ("pause_writing", ["self"]),
        ("resume_writing", ["self"]),
        ("eof_received", ["self"]),
        ("handle_error", ["self", "request", "status", "exc", "message"]),
        ("force_close", ["self"]),
        ("_drain_helper", ["self"]),
    ],
)
def test_what_is_called_takes_what_it_took(name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(RequestHandler, name)).parameters) == parameters


def test_a_parser_that_goes_on_passes_no_bytes() -> None:
    source = inspect.getsource(BaseProtocol.resume_reading)
    assert 'self.data_received(b"")' in source
    assert "self._drain_waiter" in inspect.getsource(BaseProtocol.resume_writing)
