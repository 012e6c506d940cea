"""A running gateway's admin listener, as commands ask it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from gateway.cli.option import KEY_VARIABLE
from gateway.core.error import SettingsError

HINT = f"a running gateway is reached with --admin http://HOST:PORT and {KEY_VARIABLE}"
_TIMEOUT_SECONDS = 30.0

Document = dict[str, Any]


class AdminApi:
    """Asks one admin listener."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def ask(self, method: str, path: str, **given: Any) -> Document:
        """The answer's document. Raises SettingsError with what the gateway says is wrong."""
        try:
            async with self._session.request(method, self._url + path, **given) as response:
                raw = await response.read()
                document = await response.json(content_type=None) if raw else {}
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            said = str(error) or type(error).__name__
            raise SettingsError([f"{self._url}{path}: {said}"]) from error
        if response.status >= 300:
            raise SettingsError(_problems(response.status, document))
        found: Document = document
        return found


@asynccontextmanager
async def open_admin_api(url: str) -> AsyncIterator[AdminApi]:
    """The admin listener at `url`. Raises SettingsError without a key in the environment."""
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise SettingsError([f"{KEY_VARIABLE}: set it to a key with the scope admin"])
    async with aiohttp.ClientSession(
        headers={"X-API-Key": key}, timeout=aiohttp.ClientTimeout(_TIMEOUT_SECONDS)
    ) as session:
        yield AdminApi(session, url)


def _problems(status: int, document: Any) -> list[str]:
    """A problem document (RFC 9457) in sentences."""
    if not isinstance(document, dict):
        return [f"the gateway answered {status}"]
    errors = document.get("errors")
    if isinstance(errors, list) and errors:
        return [f"{each['pointer'].removeprefix('#/')}: {each['detail']}" for each in errors]
    return [str(document.get("detail", f"the gateway answered {status}"))]
