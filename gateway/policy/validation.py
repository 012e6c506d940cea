"""What requests may hold: judged before anything is done with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.error import (
    ContentTooLarge,
    GatewayError,
    InvalidRequest,
    ServiceUnavailable,
    UnprocessableContent,
    UnsupportedMediaType,
)
from gateway.core.inflate import CODINGS, Inflated, InflateFault, inflate
from gateway.core.message import Handler, Request, Response, WholeBody
from gateway.core.route import OTHER
from gateway.core.schema import Schema
from gateway.core.strict_json import JsonFault, parse
from gateway.core.text_rule import TextRule, judge
from gateway.core.violation import Violations
from gateway.policy.openapi_source import OpenApiSource
from gateway.policy.step import NOTHING, Step
from gateway.settings.policy_validation import ValidationPolicy, ValidationRoute
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics, Tally

_CODING = "Content-Encoding"
_LENGTH = "Content-Length"
_TYPE = "Content-Type"
_JSON_BEGINS = (b"{", b"[")
_BLANKS = b" \t\r\n"
_RETRY_SECONDS = "5"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one route wants."""

    max_body: int
    content_types: tuple[str, ...]
    schema: Schema | None
    text: TextRule


class Validation:
    """Judges a request's body, and all of it against what the upstream says of itself.

    Only bodies that a rule needs are read whole: JSON, compressed ones, and those of a route with a
    bound of its own; others pass as they come. What `documents` holds under a route's
    `schema_file` is its JSON Schema. In shadow nothing is refused or changed.

    Raises ValueError for a schema that is none.
    """

    def __init__(
        self,
        policy: ValidationPolicy,
        documents: Mapping[str, Any],
        source: OpenApiSource,
        metrics: Metrics,
    ) -> None:
        self._policy = policy
        self._enforced = policy.mode == "enforce"
        self._enabled = policy.enabled
        self._denies = policy.openapi.on_unavailable == "deny"
        self._source = source if policy.openapi.source != "none" else None
        self._else = _plan(policy, ValidationRoute(), documents)
        self._plans = {
            name: _plan(policy, route, documents) for name, route in policy.routes.items()
        }
        self._decisions = metrics.validation_decisions_total
        passed = "passed" if self._enforced else "shadow-passed"
        self._passed = metrics.tally(self._decisions, passed)
        self._log = get_logger("validation")

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Pass the request on if it is good.

        Raises `InvalidRequest`, `ContentTooLarge`, `UnsupportedMediaType`, `UnprocessableContent`,
        or `ServiceUnavailable` where the upstream's description is needed and away.
        """
        if not self._enabled or (request.body.is_empty and self._has_no_say(request)):
            return await call_next(request)
        mended: bytes | None = None
        try:
            mended = await self._judge(request)
        except GatewayError as error:
            self._refuse(request, error)
        else:
            if mended is None:
                self._passed.inc()
            else:
                self._mend(request, mended)
        return await call_next(request)

    def step(self, request: Request, response: Response) -> Step | None:  # noqa: ARG002
        """What was judged without a body is as good again while the upstream says the same."""
        if not self._enabled:
            return NOTHING
        if not request.body.is_empty or self._denies:
            return None
        if self._has_no_say(request):
            return NOTHING if self._source is None else _Again(self._source, None)
        if not self._enforced or self._policy.openapi.mode != "enforce":
            return None  # what is let through in shadow is logged each time
        return None if self._source is None else _Again(self._source, self._passed)

    async def explain(self, request: Request) -> str:
        """What it would decide and why, in a sentence; nothing is counted."""
        if not self._policy.enabled:
            return "switched off: bodies pass as they are"
        shadow = "" if self._enforced else " (shadow: let through)"
        try:
            mended = await self._judge(request)
        except GatewayError as error:
            return f"{error.status} {error.slug}: {error.detail}{shadow}"
        if request.body.is_empty:
            return f"no body: nothing to judge but parameters, and those are good{shadow}"
        return f"the body is good{', once stripped' if mended is not None else ''}{shadow}"

    def _has_no_say(self, request: Request) -> bool:
        """True when the upstream's description says nothing of the request outside its body."""
        source, match = self._source, request.match
        if source is None or match.route.gateway:
            return True
        if source.current is None:
            return not self._denies
        return match.route is not OTHER and not source.current.concerns(
            request.method, match.route.template
        )

    async def _judge(self, request: Request) -> bytes | None:
        """The body as it is to be forwarded; None when it stays as it came."""
        plan = self._plans.get(request.match.name, self._else)
        violations, described = Violations(), Violations()
        schema = self._judge_parameters(request, described)
        mended: bytes | None = None
        if not request.body.is_empty:
            plain = await self._read(request, plan, _checked_type(request, plan))
            if plain is not None:
                document, mended = self._judge_json(plain, plan, violations)
                if schema is not None:
                    schema.judge(document, described)
        if self._policy.openapi.mode == "enforce":
            violations.errors.extend(described.errors)
        elif described.errors:
            self._in_shadow(request, UnprocessableContent("", described.errors))
        violations.raise_any()
        return mended

    def _judge_parameters(self, request: Request, violations: Violations) -> Schema | None:
        """Note what is wrong outside the body; the schema that the upstream has for the body."""
        if self._source is None or request.match.route.gateway:
            return None
        api = self._source.current
        if api is None:
            if self._denies:
                raise ServiceUnavailable(
                    "The upstream has not said yet what its requests look like; try again shortly.",
                    headers={"Retry-After": _RETRY_SECONDS},
                )
            return None
        operation, values = api.find(
            request.method, request.path, request.match.route, tuple(request.match.params.values())
        )
        if operation is None:
            return None
        operation.judge_parameters(values, request.query, request.headers, violations)
        if operation.body_required and request.body.is_empty:
            violations.add("is required: send a JSON body")
        return operation.body

    async def _read(self, request: Request, plan: _Plan, kind: str) -> bytes | None:
        """The plain bytes of a body that is to be judged as JSON; None for any other.

        A body without a type is JSON when it begins so: the upstream may take it for that.
        """
        codings = _codings(request)
        is_json = kind == "application/json" or kind.endswith("+json")
        is_needed = is_json or codings or plan.max_body < sys.maxsize
        if not is_needed and (kind or not _may_be_json(await request.body.peek())):
            return None
        body = await self._whole(request, plan)
        plain = self._inflated(body, codings) if codings else body
        return plain if is_json or (not kind and _is_like_json(plain)) else None

    async def _whole(self, request: Request, plan: _Plan) -> bytes:
        # In shadow a body beyond the bound is still to be forwarded: it must not be half read.
        limit = plan.max_body if self._enforced else sys.maxsize
        too_large = ContentTooLarge(
            f"The body exceeds {plan.max_body} bytes, the bound of its route; send less, or ask "
            "the operator to raise it in policies/validation.yaml."
        )
        try:
            body = await request.body.read(limit)
        except ContentTooLarge as error:
            if f" {limit} bytes" in error.detail:
                raise too_large from error
            raise  # the server's own bound is the lower one
        if len(body) > plan.max_body:
            raise too_large
        return body

    def _inflated(self, body: bytes, codings: list[str]) -> bytes:
        # One coding: bytes that were compressed again and again are made for a bomb.
        refused = self._policy.compressed == "refuse"
        if refused or len(codings) > 1 or codings[0] not in CODINGS:
            raise UnsupportedMediaType(
                f"A body in the coding {', '.join(codings)} is not taken here; send it "
                f"{'uncompressed' if refused else 'uncompressed, or as gzip or zstd'}.",
                headers={"Accept-Encoding": "identity" if refused else "gzip, zstd"},
            )
        try:
            return inflate(codings[0], body, self._policy.max_inflated)
        except Inflated as error:
            raise ContentTooLarge(f"The body {error} when it is inflated; send less.") from error
        except InflateFault as error:
            raise InvalidRequest(f"The body {error}, though Content-Encoding says so.") from error

    def _judge_json(
        self, plain: bytes, plan: _Plan, violations: Violations
    ) -> tuple[Any, bytes | None]:
        """The document as it is to be forwarded, and its bytes where that is not as it came."""
        try:
            document = parse(plain, self._policy.max_depth)
        except JsonFault as error:
            raise InvalidRequest(f"The body {error}.") from error
        mended: bytes | None = None
        if not plan.text.is_idle:
            verdict = judge(document, plan.text)
            violations.errors.extend(verdict.violations.errors)
            document = verdict.document
            if verdict.changed:
                mended = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        if plan.schema is not None:
            plan.schema.judge(document, violations)
        return document, mended

    def _mend(self, request: Request, body: bytes) -> None:
        self._decisions.labels("stripped" if self._enforced else "shadow-stripped").inc()
        if self._enforced:
            request.body = WholeBody(body)
            request.headers.popall(_CODING, None)
            request.headers[_LENGTH] = str(len(body))

    def _refuse(self, request: Request, error: GatewayError) -> None:
        if not self._enforced:
            self._in_shadow(request, error)
            return
        self._decisions.labels(error.slug).inc()
        raise error

    def _in_shadow(self, request: Request, error: GatewayError) -> None:
        self._decisions.labels(f"shadow-{error.slug}").inc()
        self._log.info(
            "validation_shadow",
            problem=error.slug,
            detail=error.detail,
            errors=error.extra.get("errors"),
            route=request.match.name,
            client=request.client,
            **request.ids,
        )


class _Again(Step):
    """The upstream's description is the one by which the request was good; `passed` counts it."""

    __slots__ = ("_current", "_passed", "_source", "reads")

    def __init__(self, source: OpenApiSource, passed: Tally | None) -> None:
        self._source = source
        self._current = source.current
        self._passed = passed
        # Where nothing is said of the request, no field of it matters.
        self.reads = frozenset() if passed is None else None

    def is_ready(self, at: float) -> bool:  # noqa: ARG002 - descriptions have no time
        return self._source.current is self._current

    def enter(self, at: float) -> None:  # noqa: ARG002 - as above
        if self._passed is not None:
            self._passed.inc()


def _plan(policy: ValidationPolicy, route: ValidationRoute, documents: Mapping[str, Any]) -> _Plan:
    return _Plan(
        max_body=route.max_body or sys.maxsize,
        content_types=tuple(each.lower() for each in route.content_types),
        schema=None if route.schema_file is None else Schema(documents[route.schema_file]),
        text=TextRule(route.markup or policy.markup, route.control or policy.control),
    )


def _may_be_json(begin: bytes) -> bool:
    """True for the begin of what `_is_like_json`, as far as it tells."""
    return bool(begin) and (not begin.strip(_BLANKS) or _is_like_json(begin))


def _is_like_json(body: bytes) -> bool:
    return body.lstrip(_BLANKS).startswith(_JSON_BEGINS)


def _checked_type(request: Request, plan: _Plan) -> str:
    """The body's type. Raises `UnsupportedMediaType` for one that its route does not take."""
    kind = _media_type(request)
    if plan.content_types and kind not in plan.content_types:
        raise UnsupportedMediaType(
            f"The body must be {' or '.join(plan.content_types)}"
            f"{f', not {kind}' if kind else '; say so in Content-Type'}.",
            headers={"Accept": ", ".join(plan.content_types)},
        )
    return kind


def _media_type(request: Request) -> str:
    """The type without its parameters; of several fields all, so that none is believed."""
    given = ",".join(request.headers.getall(_TYPE, ()))
    return given.partition(";")[0].strip().lower() if "," not in given else given


def _codings(request: Request) -> list[str]:
    listed = ",".join(request.headers.getall(_CODING, ())).lower().split(",")
    return [coding for each in listed if (coding := each.strip()) not in ("", "identity")]
