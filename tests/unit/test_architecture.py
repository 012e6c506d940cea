"""The core is pure, provably and without a linter: what it imports is read from its source."""

from __future__ import annotations

import ast
import socket
from pathlib import Path

import pytest
from pytest_socket import SocketConnectBlockedError

import gateway

PACKAGE = Path(gateway.__file__).parent
CORE = sorted((PACKAGE / "core").rglob("*.py"))

# Loops, networks, clocks, randomness and the environment: callers pass their results in.
IMPURE_MODULES = frozenset(
    {
        "aiohttp",
        "asyncio",
        "io",
        "os",
        "pathlib",
        "random",
        "redis",
        "secrets",
        "socket",
        "sqlite3",
        "structlog",
        "subprocess",
        "threading",
        "time",
        "uvloop",
    }
)
# Pure modules whose own functions read a clock, randomness or a file.
IMPURE_CALLS = frozenset(
    {
        "datetime.now",
        "datetime.utcnow",
        "datetime.today",
        "date.today",
        "uuid.uuid1",
        "uuid.uuid4",
        "open",
        "input",
    }
)


def imported_modules(source: str) -> set[str]:
    """The top-level names of every module that `source` imports, at any depth of nesting."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            names.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("__import__", "import_module")
        ):
            names.update(
                str(argument.value).partition(".")[0]
                for argument in node.args
                if isinstance(argument, ast.Constant)
            )
    return names


def impure_calls(source: str) -> set[str]:
    """The calls in `source` that read a clock, randomness or a file, by their last two names."""
    called = {
        ".".join(ast.unparse(node.func).split(".")[-2:])
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
    }
    return called & IMPURE_CALLS


def test_core_is_where_this_test_looks() -> None:
    assert {"job.py", "message.py", "error.py"} <= {path.name for path in CORE}


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_core_imports_nothing_impure(path: Path) -> None:
    assert imported_modules(path.read_text()) & IMPURE_MODULES == set()


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_core_reads_no_clock_randomness_or_file(path: Path) -> None:
    assert impure_calls(path.read_text()) == set()


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "from asyncio import sleep",
        "from time import monotonic as clock",
        "def f():\n    import random",
        "__import__('secrets')",
        "importlib.import_module('socket')",
    ],
)
def test_impure_import_is_found(source: str) -> None:
    assert imported_modules(source) & IMPURE_MODULES


@pytest.mark.parametrize("source", ["datetime.now(UTC)", "dt.datetime.now()", "uuid.uuid4()"])
def test_impure_call_is_found(source: str) -> None:
    assert impure_calls(source)


def test_tests_reach_no_other_machine() -> None:
    with socket.socket() as client:
        client.settimeout(0.1)
        with pytest.raises(SocketConnectBlockedError):
            client.connect(("192.0.2.1", 80))  # TEST-NET-1, RFC 5737
