"""Listeners: TLS with certificates renewed under way, a Unix socket, one port for several."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from multidict import CIMultiDict

from gateway.core.message import Request, Response
from gateway.settings.server import Listener, ServerTls
from gateway.web.certificate import Certificate
from tests.support.certificate import make_certificate
from tests.support.lane import Wire, ask, connected, get, running
from tests.support.system import eventually


async def who(request: Request) -> Response:
    headers = CIMultiDict({"Content-Type": "text/plain"})
    return Response(200, headers, f"{request.scheme} {request.client}".encode())


async def served_name(port: int, trusted: Path) -> str:
    """The name of the certificate that a new client is shown, which it must trust."""
    context = ssl.create_default_context(cafile=trusted)
    context.check_hostname = False
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(get())
        reply = await Wire(reader, writer).reply()
        assert reply.body == b"https 127.0.0.1"
        assert reply.get("Strict-Transport-Security") == "max-age=63072000; includeSubDomains"
        certificate = writer.get_extra_info("peercert")
        name: str = certificate["subjectAltName"][0][1]
        return name
    finally:
        writer.close()


async def test_tls_is_spoken_and_a_renewed_certificate_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.web.certificate.Certificate.follow.__defaults__", (0.02,))
    certificate, key = make_certificate(tmp_path, "first.example")
    async with running(who, tls=ServerTls(certificate=str(certificate), key=str(key))) as run:
        assert await served_name(run.port, certificate) == "first.example"
        make_certificate(tmp_path, "second.example")

        async def renewed() -> bool:
            try:
                return await served_name(run.port, certificate) == "second.example"
            except ssl.SSLError:  # the old one still, which is trusted no more
                return False

        await eventually("the new certificate is shown", renewed, 5)


def test_files_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "first.example")
    follower = Certificate(ServerTls(certificate=str(certificate), key=str(key)))
    before = follower.context.cert_store_stats()
    other, _ = make_certificate(tmp_path / "other", "other.example")
    other.replace(certificate)

    follower.refresh()

    assert follower.context.cert_store_stats() == before
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        Certificate(ServerTls(certificate=str(certificate), key=str(key)))


def test_a_file_that_is_gone_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pem"):
        Certificate(ServerTls(certificate=str(tmp_path / "none.pem"), key="none"))


async def test_a_unix_socket_serves_the_same(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    async with running(who, socket=str(path)):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(get())
        assert (await Wire(reader, writer).reply()).body == b"http unix"
        writer.close()


async def test_a_port_that_is_taken_is_told_at_once() -> None:
    async with running(who) as one:
        taken = Listener(host="127.0.0.1", port=one.port)
        async with asyncio.timeout(1):
            with pytest.raises(OSError, match="in use"):
                async with running(who, public=taken, drain_delay=30, drain_timeout=60):
                    raise AssertionError("it listens where another does")


async def test_two_processes_can_share_a_port() -> None:
    async with running(who, reuse_port=True) as one:
        again = Listener(host="127.0.0.1", port=one.port)
        async with running(who, reuse_port=True, public=again) as two:
            assert two.port == one.port
            assert (await ask(one.port, get())).status == 200
        async with connected(one.port) as wire:  # the first goes on
            await wire.send(get())
            assert (await wire.reply()).status == 200
