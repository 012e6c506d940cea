"""Builds the Dockerfile with buildah on a Debian made by debootstrap, and runs what came out.

Nothing is fetched from an image registry and nothing is kept: base, store and mounts live in one
folder. As root only: debootstrap and the mounts need it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.system import ROOT

TOOLS = ("buildah", "debootstrap", "unshare", "chroot")
_BASE = "localhost/base:test"
_IMAGE = "localhost/gateway:test"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# A root nobody can write to, with the one volume and what every runtime mounts. $1: the root.
_ISOLATE = """
set -eu
root=$1 state=$2; shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --bind "$state" "$root/var/lib/gateway"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec "$@"
"""


def missing() -> str | None:
    """Why the image cannot be built here, or None."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"{', '.join(absent)} not installed"
    return None if os.geteuid() == 0 else "building an image on debootstrap's base needs root"


@dataclass(frozen=True, slots=True)
class Image:
    """A built image, mounted: `config` as Docker knows it, `root` its files, `state` its volume."""

    config: Mapping[str, Any]
    root: Path
    state: Path
    base_bytes: int
    total_bytes: int

    def command(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> list[str]:
        """What runs `arguments` as a runtime would.

        With the image's user, environment and working folder, the root read-only.
        """
        uid, _, gid = self.config["User"].partition(":")
        given = [f"{name}={value}" for name, value in (environment or {}).items()]
        inside = ["env", "-i", "-C", self.config["WorkingDir"], *self.config["Env"], *given]
        isolate = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ISOLATE, "sh"]
        jail = ["chroot", f"--userspec={uid}:{gid}", "--groups=", str(self.root)]
        return [*isolate, str(self.root), str(self.state), *jail, *inside, *arguments]


def build(folder: Path) -> Image:
    """Build the Dockerfile in `folder`, on a new base; CalledProcessError shows what failed."""
    buildah = Buildah(folder)
    base_bytes = _make_base(buildah)
    config = _pip_config(folder)
    volumes = [f"{config}:/etc/pip.conf:ro", *(f"{path}:{path}:ro" for path in _local_paths())]
    buildah(
        "bud",
        *("--isolation", "chroot", "--format", "docker", "--pull-never", "--layers=false"),
        *(f"--volume={each}" for each in volumes),
        *("--build-arg", f"BASE={_BASE}", "--tag", _IMAGE, str(ROOT)),
    )
    container = buildah("from", "--pull-never", _IMAGE)
    root = Path(buildah("mount", container))
    described = json.loads(buildah("inspect", "--type", "image", _IMAGE))
    state = folder / "state"
    shutil.copytree(root / "var/lib/gateway", state)
    owner = (root / "var/lib/gateway").stat()
    os.chown(state, owner.st_uid, owner.st_gid)
    return Image(described["Docker"]["config"], root, state, base_bytes, _size(root))


class Buildah:
    """buildah on a store of its own."""

    def __init__(self, folder: Path) -> None:
        self._options = ["--storage-driver", "vfs"]
        self._options += ["--root", str(folder / "store"), "--runroot", str(folder / "run")]

    def __call__(self, *arguments: str) -> str:
        """What it said on stdout."""
        return _run("buildah", *self._options, *arguments).strip()


def _make_base(buildah: Buildah) -> int:
    """Debian 12 with Python, as the Dockerfile's BASE asks for; its size in bytes."""
    container = buildah("from", "scratch")
    root = Path(buildah("mount", container))
    packages = "--include=python3,python3-venv,ca-certificates"
    _run("debootstrap", "--variant=minbase", packages, "bookworm", str(root))
    for leftover in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / leftover)
    base_bytes = _size(root)
    buildah("config", "--env", _PATH, container)
    buildah("umount", container)
    buildah("commit", "--rm", container, _BASE)
    return base_bytes


def _pip_settings() -> dict[str, str]:
    """How pip is set up on this machine; later ones (the environment's) win."""
    said = _run(sys.executable, "-m", "pip", "config", "list")
    found = {}
    for line in said.splitlines():
        name, _, value = line.partition("=")
        found[name.rpartition(".")[2]] = value.strip("'").replace("\\n", " ")
    return found


def _pip_config(folder: Path) -> Path:
    """This machine's settings of pip as one file, which the build sees and no image keeps."""
    path = folder / "pip.conf"
    lines = [f"{name} = {value}" for name, value in _pip_settings().items()]
    path.write_text("\n".join(["[global]", *lines, ""]))
    return path


def _local_paths() -> list[str]:
    """What those settings name on this machine's disk: certificates, constraints, folders."""
    paths = []
    for word in " ".join(_pip_settings().values()).split():
        # The pages of an index on disk link to the files that lie beside them.
        index = urlsplit(word).path if word.startswith("file:") else ""
        path = Path(index).parent if index else Path(word)
        if path.is_absolute() and path.exists():
            paths.append(str(path))
    return sorted(set(paths))


def _size(root: Path) -> int:
    """What the files of a tree take, each counted once."""
    return int(_run("du", "--summarize", "--bytes", "--one-file-system", str(root)).split()[0])


def _run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        error = subprocess.CalledProcessError(done.returncode, command[0])
        error.add_note(f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        raise error
    return done.stdout
