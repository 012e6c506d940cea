"""What the gateway would do with a request, policy by policy; nothing is counted or sent."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.app.gateway import Gateway
from gateway.app.keys import open_keys
from gateway.core.error import GatewayError, SettingsError
from gateway.core.message import NoBody, Request, WholeBody
from gateway.core.route import OTHER
from gateway.policy.base import Policy
from gateway.policy.build import in_order
from gateway.policy.rate_limit import RateLimit
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet
from gateway.web.head import parse_head

_REFUSAL = re.compile(r"[45]\d\d\b")
_ANSWERED = "204 "
_SHADOW = "(shadow"
# A word between lower and upper case: RateLimit is rate_limit in YAML and logs.
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Question:
    """A request as the command line has it; `address` is the client's, after trusted proxies."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    address: str = "127.0.0.1"
    scheme: str = "http"


@dataclass(frozen=True, slots=True)
class Step:
    """What one policy would decide, and why; `refuses` says that it ends the request."""

    policy: str
    decision: str
    refuses: bool = False


@dataclass(slots=True)
class Explanation:
    """The route of a request, and each policy in the order that it meets them."""

    route: str
    template: str
    answered_by: str
    forwarded: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def refused_by(self) -> str | None:
        """The first policy that ends the request; None when it passes them all."""
        return next((step.policy for step in self.steps if step.refuses), None)


async def explain(settings: Settings, policies: PolicySet, question: Question) -> Explanation:
    """What would become of the question.

    Keys of the store are looked up when it is there and no gateway has it open; that it could not
    be asked stands in the notes. Raises `GatewayError` for a request that is none.
    """
    gateway = Gateway(settings, policies)  # made, never started: it opens and dials nothing
    request = _request(gateway, question)
    route = request.match.route
    found = Explanation(
        route=route.name,
        template=route.template if route is not OTHER else request.path,
        answered_by="gateway" if route.gateway else "upstream",
        forwarded=f"{request.method} {request.target}",
        parameters=request.match.params,
    )
    if note := await _take_keys(gateway, settings, policies):
        found.notes.append(note)
    if policies.validation.openapi.source == "upstream":
        found.notes.append("the upstream's own OpenAPI document is not asked for here")
    if request.refusal is not None:
        error = request.refusal
        said = f"{error.status} {error.slug}: {error.detail}"
        found.steps.append(Step("target", said, refuses=True))
        return found
    for policy in in_order(policies, gateway.front.parts):
        found.steps += await _steps(policy, request)
        if found.refused_by is not None or _answers(found.steps):
            break
    return found


def _request(gateway: Gateway, question: Question) -> Request:
    """The request as the listener would read it."""
    fields = [*question.headers]
    names = {name.lower() for name, _ in fields}
    if "host" not in names:
        fields.append(("Host", "localhost"))
    if question.body and "content-length" not in names:
        fields.append(("Content-Length", str(len(question.body))))
    lines = [f"{question.method.upper()} {question.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields]
    head = parse_head(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape"))
    if head.error is not None:
        raise head.error
    arrival = gateway.front.adapter.judge(head, question.address, question.scheme)
    body = WholeBody(question.body) if question.body else NoBody()
    return arrival.request(body, gateway.front.now())


async def _take_keys(gateway: Gateway, settings: Settings, policies: PolicySet) -> str | None:
    """Look up the keys of the store too; why not, where it cannot be asked."""
    if "store" not in policies.auth.keys.source or not policies.auth.enabled:
        return None
    if not _has_store(settings):
        return "there is no store yet: only the keys of auth.yaml are known"
    try:
        async with open_keys(settings, policies) as (_, store):
            changes = await store.changes(0)
    except (GatewayError, SettingsError) as error:
        reason = str(error).partition("\n")[0]
        return f"only the keys of auth.yaml are known; the store was not asked: {reason}"
    gateway.front.keys.by_hash.update({key.sha256: key for key in changes.keys})
    return None


def _has_store(settings: Settings) -> bool:
    """True when there is a file of keys; opening it would make one."""
    return Path(settings.store.sqlite.path).exists()


async def _steps(policy: Policy, request: Request) -> list[Step]:
    explainer: Any = getattr(policy, "explain", None)
    if explainer is None:
        return []
    said = explainer(request)
    if inspect.isawaitable(said):
        said = await said
    name = _WORD.sub("_", type(policy).__name__).lower()
    if isinstance(policy, RateLimit):
        name = f"{name} ({policy.stage})"
        said = said or ["no limit applies"]
    lines: Sequence[str] = [said] if isinstance(said, str) else said
    return [Step(name, line, refuses=_refuses(line)) for line in lines]


def _answers(steps: Sequence[Step]) -> bool:
    """True when the last policy answers by itself, as CORS does a preflight."""
    last = steps[-1].decision if steps else ""
    return last.startswith(_ANSWERED) and _SHADOW not in last


def _refuses(said: str) -> bool:
    return bool(_REFUSAL.match(said)) and _SHADOW not in said
