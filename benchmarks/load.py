"""A load of keep-alive GETs on loopback, cheap enough to leave the server its core."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Load:
    """What a load came to: answers, those not 2xx among them, and latencies in seconds, sorted."""

    answers: int
    failures: int
    latencies: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """The latency that this share of the answers did not exceed, in seconds."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


async def apply(url: str, headers: dict[str, str], *, connections: int, requests: int) -> Load:
    """Send `requests` GETs of `url` over `connections` connections, each one after the other.

    Every answer must carry a Content-Length. Raises OSError when the server goes away.
    """
    parts = urlsplit(url)
    lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    assert parts.hostname is not None
    target = (parts.hostname, parts.port or 80)
    share = requests // connections
    parts_done = await asyncio.gather(
        *(_client(target, request, share) for _ in range(connections))
    )
    latencies = sorted(latency for each, _ in parts_done for latency in each)
    failures = sum(failed for _, failed in parts_done)
    return Load(len(latencies), failures, tuple(latencies))


async def _client(target: tuple[str, int], request: bytes, count: int) -> tuple[list[float], int]:
    clock = asyncio.get_running_loop().time
    reader, writer = await asyncio.open_connection(*target)
    latencies, failures = [], 0
    try:
        for _ in range(count):
            started = clock()
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            latencies.append(clock() - started)
            failures += head[9:10] != b"2"
    finally:
        writer.close()
    return latencies, failures
