"""The sockets of several workers: one port, a socket a slot, and nobody else's port."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from gateway.settings.server import Listener, Server
from gateway.worker.listening import bind


def server(port: int = 0, **fields: object) -> Server:
    listener = Listener(host="127.0.0.1", port=port)
    return Server.model_validate({"public": listener, **fields})


def test_every_slot_has_a_socket_on_the_one_port() -> None:
    sockets = bind(server(), 3)
    try:
        ports = [one.getsockname()[1] for each in sockets.public for one in each]
        assert ports == [sockets.port] * 3
        assert len(set(sockets.descriptors)) == 3
    finally:
        sockets.close()


def test_a_port_that_somebody_listens_on_is_refused_whatever_its_options() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(OSError, match=f"bind on address \\('127.0.0.1', {port}\\)") as refused:
            bind(server(port), 2)

        assert refused.value.errno == errno.EADDRINUSE


def test_a_port_may_be_shared_with_others_where_the_settings_say_so() -> None:
    first = bind(server(), 1)
    try:
        bind(server(first.port, reuse_port=True), 2).close()
    finally:
        first.close()


def test_a_unix_socket_left_behind_is_replaced_and_removed_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    sockets = bind(server(socket=str(path)), 2)

    assert path.exists()
    assert len(list(sockets.descriptors)) == 3
    sockets.close()
    assert not path.exists()


def test_a_file_in_the_unix_sockets_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("mine")

    with pytest.raises(OSError, match="in use") as refused:
        bind(server(socket=str(path)), 2)

    assert refused.value.filename == str(path)
    assert path.read_text() == "mine"
