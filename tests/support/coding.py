"""Bodies in each coding that the gateway makes plain."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_WIDER: dict[int, int] = {zstd.CompressionParameter.window_log: 24}

CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda plain: gzip.compress(plain, 1),
    "zstd": zstd.compress,
}


def wide_zstd(plain: bytes) -> bytes:
    """A frame whose window is wider than its coding may ask for."""
    return zstd.compress(plain, options=_WIDER)
