"""What went wrong with an HTTP exchange, in the terms of the delivery log."""

from __future__ import annotations

import ssl

import aiohttp

from gateway.core.retry import ErrorKind

# Everything an exchange raises when the network, the peer or the clock fails it.
EXCHANGE_ERRORS = (aiohttp.ClientError, OSError, TimeoutError)


def error_kind(error: BaseException) -> ErrorKind:
    """The kind of an error out of `EXCHANGE_ERRORS`."""
    if isinstance(error, TimeoutError):
        return ErrorKind.TIMEOUT
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return ErrorKind.DNS
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | aiohttp.ServerFingerprintMismatch):
        return ErrorKind.TLS
    return ErrorKind.CONNECT


def describe(error: BaseException) -> str:
    """One line for people; an error without a text gives its name."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
