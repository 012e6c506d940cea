"""python -m tests.conformance.run FOLDER: http-tests/cache-tests against the gateway.

FOLDER is a checkout of https://github.com/http-tests/cache-tests after `npm install --omit=dev`.
Starts the suite's origin and a gateway that caches by the origin's headers alone, runs the suite's
own client, and prints what was passed. Exits with 1 when a required test was not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
START_SECONDS = 30.0
RUN_SECONDS = 600.0
_LOG_CHARACTERS = 3000
KINDS = ("required", "optimal", "check")
_LIST_TESTS = """
const suites = (await import(process.argv[1])).default
const tests = suites.flatMap((suite) => suite.tests).filter((test) => !test.browser_only)
console.log(JSON.stringify(tests.map(
  ({ id, kind, depends_on }) => ({ id, kind: kind ?? 'required', depends_on: depends_on ?? [] }))))
"""


@dataclass(frozen=True, slots=True)
class Test:
    """One test of the suite; without what it depends on, its result means nothing."""

    id: str
    kind: str
    depends_on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What the suite's client found, by test."""

    tests: Mapping[str, Test]
    results: Mapping[str, Any]

    def passed(self, name: str) -> bool:
        """True when the test and all that it depends on passed: the suite's own rule."""
        if self.results.get(name) is not True:
            return False
        return all(self.passed(other) for other in self.tests[name].depends_on)

    def failure(self, name: str) -> str:
        """Why a test was not passed."""
        result = self.results.get(name)
        if result is True:
            missing = [other for other in self.tests[name].depends_on if not self.passed(other)]
            return f"depends on {', '.join(missing)}"
        return "was not run" if result is None else ": ".join(map(str, result))

    def of_kind(self, kind: str) -> Sequence[str]:
        """The names of this kind's tests, in the suite's order."""
        return [test.id for test in self.tests.values() if test.kind == kind]

    def print(self, *, every_kind: bool) -> bool:
        """Print the counts and each required test that failed; True when there is none."""
        for kind in KINDS:
            names = self.of_kind(kind)
            passed = Counter(map(self.passed, names))[True]
            print(f"{kind:8} {passed:3} of {len(names)} passed")
            if kind == "required" or every_kind:
                for name in names:
                    if not self.passed(name):
                        print(f"  {name}: {self.failure(name)}")
        return all(map(self.passed, self.of_kind("required")))


async def run(folder: Path) -> Report:
    """The report of one whole run. Raises RuntimeError when a part of it does not start."""
    listed = await _output(
        "node", "--input-type=module", "-e", _LIST_TESTS, str(folder / "tests/index.mjs")
    )
    tests = {
        test["id"]: Test(test["id"], test["kind"], tuple(test["depends_on"]))
        for test in json.loads(listed)
    }
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conformance-")))
        origin = await stack.enter_async_context(_origin(folder, scratch))
        gateway = await stack.enter_async_context(_gateway(scratch, origin))
        results = await _output(
            "node",
            "--no-warnings",
            "test-engine/cli.mjs",
            folder=folder,
            npm_config_base=gateway,
            npm_config_id="",
            npm_package_config_id="",
        )
    return Report(tests, json.loads(results))


@asynccontextmanager
async def _origin(folder: Path, scratch: Path) -> AsyncIterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with _process(
        "node",
        "test-engine/server/server.mjs",
        folder=folder,
        log=scratch / "origin.log",
        npm_config_protocol="http",
        npm_config_port=str(port),
        npm_config_pidfile=str(scratch / "origin.pid"),
    ) as process:
        await _until("the origin listens", process, lambda: _answers(port))
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def _gateway(scratch: Path, upstream: str) -> AsyncIterator[str]:
    ports = scratch / "ports.json"
    shutil.copytree(HERE / "policies", scratch / "policies")
    shutil.copy(HERE / "gateway.yaml", scratch)
    async with _process(
        sys.executable,
        "-m",
        "gateway",
        "serve",
        "--config",
        str(scratch / "gateway.yaml"),
        "--port-file",
        str(ports),
        folder=ROOT,
        log=scratch / "gateway.log",
        GATEWAY__UPSTREAM__URL=upstream,
        GATEWAY__STORE__SQLITE__PATH=str(scratch / "gateway.db"),
    ) as process:
        await _until("the gateway listens", process, ports.exists)
        yield f"http://127.0.0.1:{json.loads(ports.read_bytes())['public']}"


@asynccontextmanager
async def _process(
    *command: str, folder: Path, log: Path, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=_environment(environment), stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if process.returncode not in (0, -signal.SIGTERM):
            text = await asyncio.to_thread(log.read_text, errors="replace")
            print(text[-_LOG_CHARACTERS:], file=sys.stderr)


async def _output(*command: str, folder: Path = ROOT, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=_environment(environment), stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(RUN_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} ended with code {process.returncode}")
    return output.decode()


async def _until(what: str, process: asyncio.subprocess.Process, condition: Any) -> None:
    async with asyncio.timeout(START_SECONDS):
        # It happens in another process: there is nothing here to await.
        while not condition():
            if process.returncode is not None:
                raise RuntimeError(f"not to be: {what}; code {process.returncode}")
            await asyncio.sleep(0.05)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what configures a gateway or npm."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY", "npm_"))}
    return {**kept, **extra}


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument("folder", type=Path, help="a checkout of http-tests/cache-tests")
    parser.add_argument(
        "--all", action="store_true", help="name the optional tests not passed, too"
    )
    parser.add_argument("--json", type=Path, help="also write the suite's own results here")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if not (folder / "test-engine" / "cli.mjs").is_file():
        parser.error(f"{folder} is no checkout of http-tests/cache-tests")
    if not (folder / "node_modules").is_dir():
        parser.error(f"{folder} has no node_modules: run 'npm install --omit=dev' there")
    report = asyncio.run(run(folder))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.results, indent=2))
    return 0 if report.print(every_kind=arguments.all) else 1


if __name__ == "__main__":
    sys.exit(main())
