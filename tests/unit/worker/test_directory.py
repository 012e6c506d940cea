"""The folder of the sockets: private, short enough, gone in the end; or why there is none."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import pytest

from gateway.core.error import SettingsError
from gateway.worker import directory
from gateway.worker.directory import control_directory


def test_it_is_for_this_user_alone_and_gone_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_parents", lambda: iter([str(tmp_path)]))

    with control_directory() as folder:
        assert folder.parent == tmp_path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "parent.sock").touch()

    assert not folder.exists()


def test_a_folder_whose_sockets_could_not_be_bound_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))

    with control_directory() as folder:
        assert folder.parent != long
    assert list(long.iterdir()) == []


def test_no_place_at_all_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_parents", lambda: iter(["/nowhere"]))

    with pytest.raises(SettingsError, match="TMPDIR"), control_directory():
        pass


def test_a_read_only_root_leaves_the_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("no usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)

    assert list(directory._parents()) == ["/dev/shm"]
