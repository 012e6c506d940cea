"""The public listener's certificate, renewed without a restart."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from gateway.settings.server import ServerTls
from gateway.telemetry.log import get_logger

LOOK_SECONDS = 5.0


class Certificate:
    """A TLS context (`context`) that follows its files.

    Raises OSError, `ssl.SSLError` among them, for files that are not there or do not fit together.
    """

    def __init__(self, tls: ServerTls) -> None:
        self._files = (Path(tls.certificate), Path(tls.key))
        self._log = get_logger("tls")
        self._seen = self._stamp()
        self.context = _context(*self._files)

    async def follow(self, look_seconds: float = LOOK_SECONDS) -> None:
        """Take up each renewal; files that cannot be used change nothing, and are logged once."""
        while True:
            await asyncio.sleep(look_seconds)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Take up the files if they are others than before. New handshakes have the new ones."""
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._seen = stamp
            # Tried apart first: a certificate without its key must not get into the live context.
            _context(*self._files)
            self.context.load_cert_chain(*self._files)
        except OSError as error:
            self._log.error("certificate_refused", error=str(error))
        else:
            self._log.info("certificate_renewed", file=str(self._files[0]))

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        """What changes with the files, also where they are links that are switched over."""
        stats = [file.stat() for file in self._files]
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in stats)


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    return context
