"""Where the upstream's own description comes from: asked for beside the requests, never in one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.error import GatewayError
from gateway.core.openapi import OpenApi
from gateway.core.strict_json import JsonFault, parse
from gateway.settings.policy_validation import OpenApiRule
from gateway.telemetry.log import get_logger

MAX_BYTES = 4 * 1024**2
_MAX_DEPTH = 128
_RETRY_SECONDS = 5.0

# The body of the upstream's answer to a path; None where it has none. Raises `GatewayError`.
Fetch = Callable[[str], Awaitable[bytes | None]]


@dataclass(frozen=True, slots=True)
class SourceState:
    """How many operations are known, and why the newest description is not, if it is not.

    `published` False says that the upstream has no description: then there is nothing to judge by.
    """

    wanted: bool = False
    published: bool = True
    operations: int = 0
    error: str | None = None


class OpenApiSource:
    """Holds the description in use; it outlives changes of the policy files.

    While the upstream does not give it, what it gave before stays in use, and it is asked again
    every few seconds.
    """

    def __init__(self, fetch: Fetch) -> None:
        self.current: OpenApi | None = None
        self.state = SourceState()
        self._fetch = fetch
        self._rule = OpenApiRule()
        self._changed = asyncio.Event()
        self._raw = b""
        self._log = get_logger("openapi")

    def apply(self, rule: OpenApiRule, documents: Mapping[str, Any]) -> None:
        """Go by this rule from now on. Raises ValueError for a file that is no description."""
        if rule.source == "file" and rule.file is not None:
            self._take(OpenApi(documents[rule.file]))
        elif rule.source == "none" or self._rule.source == "file" or rule.path != self._rule.path:
            self.current, self._raw = None, b""
            self.state = SourceState(wanted=rule.source != "none")
        self._rule = rule
        self._changed.set()

    async def run(self) -> None:
        """Ask the upstream while it is the source, until cancelled."""
        while True:
            self._changed.clear()
            wait: float | None = None
            if self._rule.source == "upstream":
                await self.refresh()
                wait = self._rule.refresh if self.state.error is None else _RETRY_SECONDS
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass  # time to ask again

    async def refresh(self) -> None:
        """Ask the upstream once; what is wrong with its answer stands in `state`."""
        rule = self._rule
        try:
            raw = await self._fetch(rule.path)
            if raw is None:
                self.current, self._raw = None, b""
                self.state = SourceState(wanted=True, published=False)
                return
            if raw == self._raw:
                self.state = SourceState(wanted=True, operations=self.state.operations)
                return
            # A large document takes long to compile: not on the loop that serves requests.
            api = await asyncio.to_thread(_compiled, raw)
        except GatewayError as error:
            self._failed(error.detail)
        except ValueError as error:
            self._failed(f"what {rule.path} answers {error}")
        else:
            if rule is self._rule:
                self._raw = raw
                self._take(api)

    def _take(self, api: OpenApi) -> None:
        self.current = api
        self.state = SourceState(wanted=True, operations=len(api))
        self._log.info("openapi_taken", operations=len(api))

    def _failed(self, reason: str) -> None:
        if self.state.error is None:
            self._log.warning("openapi_away", error=reason)
        self.state = SourceState(wanted=True, operations=self.state.operations, error=reason)


def _compiled(raw: bytes) -> OpenApi:
    try:
        return OpenApi(parse(raw, _MAX_DEPTH))
    except JsonFault as error:
        raise ValueError(str(error)) from error
