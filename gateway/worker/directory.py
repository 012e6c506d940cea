"""The folder of the sockets between parent and workers, for this user's eyes alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.core.error import SettingsError

_LONGEST = 90  # bytes of a folder's path: a Unix socket's may have 107

_NOWHERE = (
    "workers: there is no folder to make the sockets between them in: let TMPDIR name one that can "
    f"be written to, of a path under {_LONGEST - 20} bytes"
)


@contextmanager
def control_directory() -> Iterator[Path]:
    """A new folder of mode 0700, removed in the end.

    Raises SettingsError when there is no place for one: with a read-only root, and no tmpfs.
    """
    folder = _made()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _made() -> Path:
    for parent in _parents():
        with suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix="gateway-", dir=parent))  # mode 0700
            if len(os.fsencode(folder)) <= _LONGEST:
                return folder
            folder.rmdir()
    raise SettingsError([_NOWHERE])


def _parents() -> Iterator[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        yield runtime
    with suppress(FileNotFoundError):  # none of those it knows can be written to
        yield tempfile.gettempdir()
    yield "/dev/shm"  # noqa: S108 - a tmpfs in a container whose root is read-only
