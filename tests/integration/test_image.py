"""The image: it builds, runs as shipped on a read-only root without being root, and is small."""

from __future__ import annotations

import asyncio
import shutil
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.support import image
from tests.support.image import Image
from tests.support.system import ROOT, eventually

MIB = 1 << 20
REASON = image.missing()

pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
    pytest.mark.timeout(480),  # the first test builds: a Debian is fetched and unpacked
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = tmp_path_factory.mktemp("image")
    try:
        yield image.build(folder)
    finally:
        shutil.rmtree(folder)  # pytest keeps what the last runs left: this is half a gigabyte


def run(built: Image, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        built.command(arguments, environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@asynccontextmanager
async def running(built: Image, environment: dict[str, str]) -> AsyncIterator[None]:
    """The image's own ENTRYPOINT, until it is ready and until it has ended well by SIGTERM."""
    command = built.command(built.config["Entrypoint"], environment)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    ready_url = f"{environment['GATEWAY_ADMIN_URL']}/health/ready"
    try:
        async with aiohttp.ClientSession() as session:

            async def is_ready_or_gone() -> bool:
                if process.returncode is not None:
                    return True
                try:
                    async with session.get(ready_url) as answer:
                        return answer.status == 200
                except aiohttp.ClientConnectionError:
                    return False

            await eventually("the image's gateway is ready", is_ready_or_gone)
        if process.returncode is None:
            yield
            process.terminate()
        said, _ = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, said
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def health_command(built: Image) -> Sequence[str]:
    kind, *command = built.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    return [str(word) for word in command]


def probe(built: Image, admin: str) -> int:
    return run(built, *health_command(built), GATEWAY_ADMIN_URL=admin).returncode


async def test_it_serves_as_it_is_and_its_healthcheck_tells(built: Image) -> None:
    admin = f"http://127.0.0.1:{free_port()}"
    environment = {
        "GATEWAY_ADMIN_URL": admin,
        "GATEWAY__SERVER__PUBLIC__HOST": "127.0.0.1",
        "GATEWAY__SERVER__PUBLIC__PORT": "0",
        "GATEWAY__SERVER__ADMIN__HOST": "127.0.0.1",
        "GATEWAY__SERVER__ADMIN__PORT": admin.rpartition(":")[2],
    }
    assert await asyncio.to_thread(probe, built, admin) != 0

    async with running(built, environment):
        assert await asyncio.to_thread(probe, built, admin) == 0

    assert await asyncio.to_thread(probe, built, admin) != 0
    # Jobs and deliveries went to the volume, the one place that can be written to.
    assert (built.state / "var" / "gateway.db").stat().st_uid == 10001


@pytest.mark.parametrize(
    "environment", ["", *sorted(path.stem for path in (ROOT / "config").glob("*.yaml"))]
)
def test_its_defaults_are_right_in_every_environment(built: Image, environment: str) -> None:
    settings = built.config["Entrypoint"][-2:]
    done = run(built, "gateway", "check", *settings, GATEWAY_ENV=environment)

    assert done.returncode == 0, done.stdout + done.stderr


def test_it_can_write_nowhere_but_to_its_volume(built: Image) -> None:
    done = run(
        built,
        "sh",
        "-c",
        "id -u; id -g; touch here && echo volume; touch /opt/gateway/x || touch /tmp/x || echo no",
    )

    assert done.stdout.split() == ["10001", "10001", "volume", "no"]
    assert set(built.config["Volumes"]) == {"/var/lib/gateway"}
    owned = [path for path in (built.root / "opt/gateway").rglob("*") if path.lstat().st_uid != 0]
    assert owned == []


def test_nothing_but_the_gateway_and_its_locked_dependencies_is_in_it(built: Image) -> None:
    done = run(built, "python", "-c", "import importlib.util as u; print(u.find_spec('pip'))")
    etc = built.root / "etc/gateway"
    shipped = {str(path.relative_to(etc)) for path in etc.rglob("*") if path.is_file()}

    assert done.stdout.strip() == "None"
    assert shipped == {
        "gateway.yaml",
        *(f"policies/{path.name}" for path in (ROOT / "policies").glob("*.yaml")),
        *(f"config/{path.name}" for path in (ROOT / "config").glob("*.yaml")),
    }
    assert not (built.root / "src").exists()
    # How this machine's pip is set up is no part of it: what it was mounted on is left, empty.
    assert not any(name.startswith("PIP_") for name in built.config["Env"])
    assert (built.root / "etc/pip.conf").stat().st_size == 0


def test_everybody_may_read_it_whatever_the_checkouts_modes(built: Image) -> None:
    unreadable = [
        path
        for folder in ("etc/gateway", "opt/gateway")
        for path in (built.root / folder).rglob("*")
        if not path.is_symlink() and not path.stat().st_mode & stat.S_IROTH
    ]

    assert unreadable == []


def test_it_is_small(built: Image) -> None:
    added = built.total_bytes - built.base_bytes

    assert added < 100 * MIB, f"{added / MIB:.0f} MiB more than the base"
