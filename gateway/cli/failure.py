"""How a command says that it failed."""

from __future__ import annotations

import errno
import os
import re
import sys

_BIND = re.compile(r"bind on address \('([^']*)', (\d+)")


def fail(*problems: str) -> int:
    """Say each problem on stderr; the exit code."""
    for problem in problems:
        print(f"gateway: {problem}", file=sys.stderr)
    return 1


def explain(error: OSError) -> str:
    """One sentence about what the system refused."""
    reason = error.strerror or str(error)
    if found := _BIND.search(str(error)):
        host, port = found.groups()
        if error.errno == errno.EADDRINUSE:
            return f"port {port} on {host} is in use by another process; choose another port"
        return f"cannot listen on port {port} of {host}: {os.strerror(error.errno or 0)}"
    if error.filename is not None:
        return f"{error.filename}: {reason}"
    if error.errno == errno.EADDRINUSE:
        return "a port of the gateway is in use by another process; choose another port"
    return reason
