"""The command as operators run it: it serves, says each mistake in a sentence, ends on SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientError, web

from tests.support.system import ROOT, GatewayProcess, clean_environment, eventually

LOOPBACK = {"host": "127.0.0.1", "port": 0}


@dataclass(frozen=True, slots=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def check_refusal(self, *words: str, problems: int = 1) -> None:
        """Exit code 1, one line a problem on stderr, no traceback, and these words."""
        lines = self.err.splitlines()
        assert (self.code, len(lines)) == (1, problems), self.err
        assert all(line.startswith("gateway: ") for line in lines)
        for word in words:
            assert word in self.err


async def run(*arguments: str, **environment: str) -> Said:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments),
        cwd=ROOT,
        env=clean_environment() | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Said(process.returncode or 0, out.decode(), err.decode())


def write(folder: Path, **changes: object) -> Path:
    """A small good gateway.yaml with these sections over it."""
    document: dict[str, object] = {
        "server": {"public": LOOPBACK, "admin": LOOPBACK},
        "store": {"sqlite": {"path": str(folder / "gateway.db")}},
        "policies": {"directory": str(ROOT / "policies")},
    }
    path = folder / "gateway.yaml"
    path.write_text(json.dumps(document | changes))  # JSON is YAML
    return path


@asynccontextmanager
async def slow_upstream() -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """An upstream that answers when told to: its URL, set once asked, to set for the answer."""
    asked, released = asyncio.Event(), asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path == "/slow":
            asked.set()
            await released.wait()
        return web.Response(text="in the end")

    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked, released
    finally:
        released.set()
        await runner.cleanup()


# --- check -------------------------------------------------------------------------------------


async def test_check_passes_the_shipped_settings() -> None:
    for environment in ("", "production", "development", "demo"):
        said = await run("check", GATEWAY_ENV=environment)
        assert (said.code, said.err) == (0, "")
        assert "good" in said.out


async def test_check_names_every_problem_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "servr: {}\n"
        "upstream:\n"
        "  url: not a url\n"
        "  response_timeout: soon\n"
        "webhooks:\n"
        "  max_retries: 99\n"
        f"policies: {{directory: {tmp_path}/policies}}\n"
    )
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "rate_limits.yaml").write_text("limits: {a: {limit: none, window: 60s}}\n")

    said = await run("check", "--config", str(config))

    said.check_refusal(
        f"{config}:1: servr", "'server'", f"{config}:4: upstream.response_timeout",
        f"{config}:6: webhooks.max_retries", f"{policies}/rate_limits.yaml:1:",
        problems=len(said.err.splitlines()),
    )  # fmt: skip
    assert len(said.err.splitlines()) >= 4
    assert said.out == ""


@pytest.mark.parametrize(
    "text",
    ["a: [", "a: 1\na: 2\n", "!!python/object:os.system {}\n", "- list\n", "\x00", "&a [*a]\n"],
    ids=["cut-off", "twice", "tag", "list", "binary", "alias"],
)
async def test_check_refuses_what_is_no_settings_file(tmp_path: Path, text: str) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(text)

    said = await run("check", "--config", str(config))

    said.check_refusal(str(config), problems=len(said.err.splitlines()))


async def test_check_connect_says_what_does_not_answer(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        away = await run(
            "check", "--connect", "--config", str(write(tmp_path, upstream={"url": url}))
        )
    async with slow_upstream() as (url, _, _):
        config = write(tmp_path, upstream={"url": url})
        there = await run("check", "--connect", "--config", str(config))

    assert (away.code, there.code) == (1, 0)
    (line,) = [line for line in away.out.splitlines() if line.startswith("upstream")]
    assert "FAILED" in line
    assert "Traceback" not in away.err + there.err


# --- serve -------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", ["public", "admin"])
async def test_port_in_use_is_one_sentence(tmp_path: Path, listener: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = {"public": LOOPBACK, "admin": LOOPBACK}
        server[listener] = {"host": "127.0.0.1", "port": port}
        said = await run("serve", "--config", str(write(tmp_path, server=server)))

    said.check_refusal(f"port {port} on 127.0.0.1 is in use")


async def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    said = await run("serve", "--config", str(tmp_path / "nowhere.yaml"))

    said.check_refusal(str(tmp_path / "nowhere.yaml"))


async def test_directory_in_a_files_place_is_one_sentence(tmp_path: Path) -> None:
    said = await run("serve", "--config", str(tmp_path))

    said.check_refusal(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
async def test_unreadable_file_is_one_sentence(tmp_path: Path) -> None:
    config = write(tmp_path)
    config.chmod(0)

    said = await run("serve", "--config", str(config))

    said.check_refusal(str(config), "Permission denied")


async def test_store_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "gateway.db"
    said = await run(
        "serve", "--config", str(write(tmp_path, store={"sqlite": {"path": str(path)}}))
    )

    said.check_refusal(str(tmp_path / "file"))


async def test_store_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    config = write(tmp_path)
    (tmp_path / "gateway.db").write_bytes(b"this is no database, however long it may be " * 100)

    said = await run("serve", "--config", str(config))

    said.check_refusal(str(tmp_path / "gateway.db"))


async def test_second_process_on_one_store_is_refused_and_the_first_serves_on(
    tmp_path: Path,
) -> None:
    async with (
        slow_upstream() as (url, _, _),
        GatewayProcess(tmp_path, url) as first,
    ):
        said = await run("serve", "--config", str(tmp_path / "gateway.yaml"))

        said.check_refusal(str(tmp_path / "gateway.db"), f"process {first.pid}")
        assert (await first.request("GET", "/a")).status == 200


async def test_sigterm_finishes_the_request_under_way_and_exits_0(tmp_path: Path) -> None:
    async with slow_upstream() as (url, asked, released):
        settings = {"server": {"drain_timeout": "15s"}}
        async with GatewayProcess(tmp_path, url, **settings) as gateway:
            request = asyncio.create_task(gateway.request("GET", "/slow"))
            await asyncio.wait_for(asked.wait(), 10)
            ending = asyncio.create_task(gateway.terminate())

            async def refuses() -> bool:
                try:
                    await gateway.speak(b"GET /health HTTP/1.0\r\n\r\n")
                except (ConnectionError, ClientError):
                    return True
                return False

            await eventually("no new connection is accepted", refuses)
            assert not request.done()
            released.set()
            answer = await request
            code = await ending

    assert (answer.status, answer.body) == (200, b"in the end")
    assert code == 0
    assert "Traceback" not in gateway.log


async def test_sigterm_does_not_wait_for_a_request_without_end(tmp_path: Path) -> None:
    async with slow_upstream() as (url, asked, _):
        settings = {"server": {"drain_timeout": "200ms"}}
        async with GatewayProcess(tmp_path, url, **settings) as gateway:
            request = asyncio.create_task(gateway.request("GET", "/slow"))
            await asyncio.wait_for(asked.wait(), 10)
            code = await gateway.terminate()
            with pytest.raises((ClientError, AssertionError)):
                assert (await request).status == 200

    assert code == 0
    assert "Traceback" not in gateway.log


async def test_restart_serves_on_with_what_was_stored(tmp_path: Path) -> None:
    async with slow_upstream() as (url, _, _), GatewayProcess(tmp_path, url) as gateway:
        webhook = await gateway.register("http://127.0.0.1:9/hook")
        assert await gateway.terminate() == 0
        await gateway.start()
        read = await gateway.request("GET", f"/api/v1/webhooks/{webhook['id']}")

        assert read.status == 200
        assert read.document == {k: v for k, v in webhook.items() if k != "secret"}


async def test_drain_turns_readiness_before_anything_is_stopped(tmp_path: Path) -> None:
    async with GatewayProcess(tmp_path, "http://127.0.0.1:1") as gateway:
        said = await run("drain", "--admin-url", gateway.admin)

        assert (said.code, said.out, said.err) == (0, "", "")
        ready = await gateway.ask_admin("/health/ready")
        assert (ready.status, ready.document["status"]) == (503, "draining")


async def test_drain_says_what_it_could_not_reach() -> None:
    said = await run("drain", GATEWAY_ADMIN_URL="http://127.0.0.1:1")

    said.check_refusal("http://127.0.0.1:1/drain cannot be asked", "--admin-url")


async def test_drain_of_what_is_no_gateway_says_so(unused_tcp_port: int) -> None:
    server = web.AppRunner(web.Application())
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", unused_tcp_port).start()
    try:
        said = await run("drain", "--admin-url", f"http://127.0.0.1:{unused_tcp_port}")
    finally:
        await server.cleanup()

    said.check_refusal("answered 404", "admin listener")
