"""A worker is started of the package that its parent runs, wherever that was found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import gateway
from gateway.worker.member import _command

ROOT = Path(gateway.__file__).resolve().parents[1]
COMMAND = ["-m", "gateway", "worker"]


def test_a_package_in_the_working_directory_is_found_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])

    assert list(_command()) == [sys.executable, *COMMAND]


def test_a_package_installed_is_not_replaced_by_one_that_lies_around(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    assert list(_command()) == [sys.executable, "-P", *COMMAND]
