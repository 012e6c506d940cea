"""A long-running check of benchmarks/ in its quick form, as a test runs it."""

from __future__ import annotations

import sys
import time
from asyncio.subprocess import PIPE, create_subprocess_exec
from typing import Any

import orjson

from tests.support.system import ROOT


async def quick_run(module: str, limit_seconds: float) -> Any:
    """Run `python -m module --quick --json`; its report. It must succeed, and within the limit."""
    started = time.monotonic()
    process = await create_subprocess_exec(
        sys.executable, "-m", module, "--quick", "--json", cwd=ROOT, stdout=PIPE
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    assert time.monotonic() - started < limit_seconds
    return orjson.loads(output.splitlines()[-1])
