"""Where the upstream is, and how to connect to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.core.error import UpstreamRefused, UpstreamTimeout
from gateway.settings.upstream import Upstream

_REFUSED = "The upstream cannot be reached; it may still be starting."
_UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Address:
    """A host and port, or the path of a Unix socket; `base` comes before every target."""

    authority: str
    base: str = ""
    host: str = ""
    port: int = 0
    unix: str | None = None
    tls: ssl.SSLContext | None = None
    server_name: str | None = None

    @classmethod
    def of(cls, settings: Upstream) -> Address:
        """Of `http://host:port/base`, `https://…` or `unix:/path`.

        Raises OSError for certificates that cannot be read, ValueError for a URL that is none.
        """
        if settings.url.startswith(_UNIX):
            return cls("localhost", unix=settings.url.removeprefix(_UNIX))
        parts = urlsplit(settings.url)
        is_tls = parts.scheme == "https"
        context = ssl.create_default_context(cafile=settings.tls.ca) if is_tls else None
        host = parts.hostname or ""
        return cls(
            authority=parts.netloc.rpartition("@")[2],
            base=parts.path.rstrip("/"),
            host=host,
            port=parts.port or (443 if is_tls else 80),
            tls=context,
            server_name=(settings.tls.server_name or host) if is_tls else None,
        )

    async def connect(self, protocol: Callable[[], asyncio.Protocol], seconds: float) -> None:
        """Connect within `seconds`. Raises `UpstreamRefused` or `UpstreamTimeout`.

        In a task of its own, for the caller may not be in one yet, and asyncio's timeouts need one.
        """
        task = asyncio.create_task(self._connect(protocol))
        timer = asyncio.get_running_loop().call_later(seconds, task.cancel)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            timer.cancel()
        if task.cancelled():
            raise UpstreamTimeout("The upstream did not take the connection in time; try again.")
        error = task.exception()
        if isinstance(error, OSError):  # what TLS refuses is one as well
            raise UpstreamRefused(_REFUSED) from error
        if error is not None:
            raise error

    async def _connect(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        if self.unix is not None:
            await loop.create_unix_connection(protocol, self.unix)
        else:
            await loop.create_connection(
                protocol, self.host, self.port, ssl=self.tls, server_hostname=self.server_name
            )
