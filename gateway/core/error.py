"""Errors the gateway answers with; `web/problem.py` alone turns them into RFC 9457 documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

PROBLEM_NAMESPACE = "urn:problem-type:gateway:"
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


class GatewayError(Exception):
    """An answer other than the one asked for.

    `detail` says what is wrong, where and how to mend it; `extra` becomes RFC 9457 extension
    members; `headers` are added to the response.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra: dict[str, Any] = dict(extra or {})
        self.headers: dict[str, str] = dict(headers or {})

    @property
    def type(self) -> str:
        """The problem type URI (RFC 9457 section 3.1.1)."""
        return PROBLEM_NAMESPACE + self.slug


class InvalidRequest(GatewayError):
    """The request cannot be understood (RFC 9110 section 15.5.1)."""

    status, slug, title = 400, "invalid-request", "Invalid request"


class Unauthorized(GatewayError):
    """No valid credential; always carries `WWW-Authenticate` (RFC 9110 section 15.5.2)."""

    status, slug, title = 401, "unauthorized", "Authentication required"


class Forbidden(GatewayError):
    """The credential is valid, its scopes are not enough."""

    status, slug, title = 403, "forbidden", "Not allowed"


class ForeignOrigin(Forbidden):
    """A page of another origin asks for what the CORS policy does not let it have."""

    slug, title = "foreign-origin", "Origin not allowed"


class NotFound(GatewayError):
    """Nothing here, or nothing the caller may know of."""

    status, slug, title = 404, "not-found", "Not found"


class MethodNotAllowed(GatewayError):
    """The resource exists, the method does not; carries `Allow`."""

    status, slug, title = 405, "method-not-allowed", "Method not allowed"


class RequestTimeout(GatewayError):
    """The request did not come in whole in time (RFC 9110 section 15.5.9); the connection ends."""

    status, slug, title = 408, "request-timeout", "Request timed out"


class Conflict(GatewayError):
    """The resource's state does not allow this now."""

    status, slug, title = 409, "conflict", "Conflict"


class IdempotencyKeyMissing(InvalidRequest):
    """A creation must carry `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header)."""

    slug, title = "idempotency-key-missing", "Idempotency-Key is missing"


class RequestOutstanding(Conflict):
    """The first request with this idempotency key is under way; carries `Retry-After`."""

    slug, title = "request-outstanding", "A request is outstanding for this Idempotency-Key"


class OutcomeUnknown(Conflict):
    """The first request with this idempotency key was interrupted: its job may exist."""

    slug, title = "outcome-unknown", "The outcome for this Idempotency-Key is unknown"


class IdempotencyKeyReused(GatewayError):
    """The idempotency key stood for another request."""

    status, slug, title = 422, "idempotency-key-reused", "Idempotency-Key is already used"


class ContentTooLarge(GatewayError):
    """The body exceeds a limit (RFC 9110 section 15.5.14)."""

    status, slug, title = 413, "content-too-large", "Content too large"


class TargetTooLong(GatewayError):
    """The request line alone exceeds what a head may hold (RFC 9110 section 15.5.15)."""

    status, slug, title = 414, "target-too-long", "Target too long"


class ExpectationFailed(GatewayError):
    """`Expect` asks for something other than `100-continue` (RFC 9110 section 15.5.18)."""

    status, slug, title = 417, "expectation-failed", "Expectation failed"


class MisdirectedRequest(GatewayError):
    """The gateway does not answer for this host (RFC 9110 section 15.5.20)."""

    status, slug, title = 421, "misdirected-request", "Misdirected request"


class UnsupportedMediaType(GatewayError):
    """The body's type or coding is not taken (RFC 9110 section 15.5.16)."""

    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"


class UnprocessableContent(GatewayError):
    """Well-formed, but a field breaks a rule; `errors` point at each (JSON Pointer, RFC 6901)."""

    status, slug, title = 422, "validation-failed", "Validation failed"

    def __init__(self, detail: str, errors: Sequence[Mapping[str, str]]) -> None:
        super().__init__(detail, extra={"errors": [dict(error) for error in errors]})


class QuotaExceeded(GatewayError):
    """A rate limit was hit; carries `Retry-After` and names the violated policies."""

    status, slug, title = 429, "quota-exceeded", "Too many requests"

    @property
    def type(self) -> str:
        """The registered type of the RateLimit fields draft."""
        return QUOTA_EXCEEDED


class FieldsTooLarge(GatewayError):
    """The header section exceeds a limit (RFC 6585 section 5)."""

    status, slug, title = 431, "fields-too-large", "Header fields too large"


class ServiceUnavailable(GatewayError):
    """The gateway sheds load or drains."""

    status, slug, title = 503, "service-unavailable", "Service unavailable"


class StoreUnavailable(ServiceUnavailable):
    """A store does not answer; each caller declares what then happens."""

    slug, title = "store-unavailable", "Store unavailable"


class UpstreamError(GatewayError):
    """The upstream gave no usable answer; `reason` is a bounded metric label.

    `sent` False says that the request cannot have reached it.
    """

    status, slug, title = 502, "upstream-error", "Upstream error"
    reason: ClassVar[str] = "error"
    sent: ClassVar[bool] = True


class UpstreamRefused(UpstreamError):
    """No connection could be made: the upstream is down or still starting."""

    slug, title, reason = "upstream-refused", "Upstream unreachable", "refused"
    sent = False


class UpstreamReset(UpstreamError):
    """The connection broke before the response was complete."""

    slug, title, reason = "upstream-reset", "Upstream closed the connection", "reset"


class UpstreamMalformed(UpstreamError):
    """The upstream's bytes are not HTTP."""

    slug, title, reason = "upstream-malformed", "Upstream answered garbage", "malformed"


class UpstreamTimeout(UpstreamError):
    """The upstream did not answer in time (RFC 9110 section 15.6.5)."""

    status, slug, title, reason = 504, "upstream-timeout", "Upstream timed out", "timeout"


class NotCached(GatewayError):
    """The client wants a stored answer or none (`only-if-cached`, RFC 9111 section 5.2.1.7)."""

    status, slug, title = 504, "not-cached", "Not in the cache"


class UpstreamUnavailable(UpstreamError):
    """The circuit breaker is open: the upstream is not asked; carries `Retry-After`."""

    status, slug, title = 503, "upstream-unavailable", "Upstream failing"
    reason = "breaker_open"
    sent = False


class UpstreamOverloaded(UpstreamError):
    """As many requests are under way as the upstream may get; carries `Retry-After`."""

    status, slug, title = 503, "upstream-overloaded", "Upstream busy"
    reason = "overloaded"
    sent = False


class SettingsError(Exception):
    """Settings or policies that cannot be used: every problem at once, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
