"""What a call of Convex failed with, and what to do about it.

Four kinds: the deployment is away (try again), it is set up wrongly (somebody must mend it), the
function is not there (deploy it), or the function refused (the same call never fares better).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import orjson

from gateway.core.retry import ErrorKind

DETAIL_CHARACTERS = 500
_RETRIABLE_STATUS = frozenset({408, 425, 429})
# Production answers this alone for whatever a function did not throw as a ConvexError.
_REDACTED = re.compile(r"\[Request ID: (\w+)\] Server Error")

KEY = (
    "set convex.deploy_key (GATEWAY__CONVEX__DEPLOY_KEY) to a deploy key of this deployment, "
    "from its dashboard"
)
ADDRESS = "set convex.url to the deployment's URL, such as https://happy-animal-123.convex.cloud"
DEPLOY = "deploy convex/ (`npx convex deploy`), or name the deployed function in convex.functions"
COMPARE = "the deployed convex/ is not this gateway's: `gateway migrate check` says what differs"
SHORTEN = "have the job carry less: a document holds 1 MiB and 1,024 fields"
LOOK_UP = (
    "production hides the cause: look the request id up in the dashboard's logs; "
    "`gateway migrate check` says whether the deployed convex/ is this gateway's"
)
OVERLOADED = "the function took longer than Convex allows: see the dashboard's insights"


class ConvexError(Exception):
    """A call that brought no value; `remedy` says what to do, and is empty when waiting helps."""

    def __init__(
        self,
        detail: str,
        kind: ErrorKind,
        *,
        status_code: int | None = None,
        retry_after: str | None = None,
        remedy: str = "",
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.kind = kind
        self.status_code = status_code
        self.retry_after = retry_after
        self.remedy = remedy

    @property
    def line(self) -> str:
        """What happened and what to do, in one line."""
        return f"{self.detail}; {self.remedy}" if self.remedy else self.detail


class ConvexFunctionError(ConvexError):
    """The function refused; `data` is its ConvexError's.

    `certain`: the same arguments never fare better. Otherwise the cause is hidden, or was a lack of
    time, and a few more tries are worth it.
    """

    def __init__(
        self, detail: str, data: object, status_code: int, *, certain: bool = True, remedy: str = ""
    ) -> None:
        super().__init__(detail, ErrorKind.REJECTED, status_code=status_code, remedy=remedy)
        self.data = data
        self.certain = certain


class ConvexUnavailable(ConvexError):
    """No answer, or one that says later: to be tried again."""


class ConvexConfigurationError(ConvexError):
    """The deployment, its key or a function's path is wrong: works once someone mends it."""

    def __init__(self, detail: str, status_code: int | None = None, *, remedy: str = "") -> None:
        super().__init__(detail, ErrorKind.CONFIGURATION, status_code=status_code, remedy=remedy)


class ConvexNotDeployed(ConvexConfigurationError):
    """The deployment is well, and lacks this function or has another kind of it."""


def of_status(status: int, answer: bytes, retry_after: str | None) -> ConvexError:
    """What an answer means that is no function's: the request itself was refused or failed."""
    detail = f"answered {status}: {_reason(answer)}"
    if status >= 500 or status in _RETRIABLE_STATUS:
        return ConvexUnavailable(
            detail, ErrorKind.HTTP_STATUS, status_code=status, retry_after=retry_after
        )
    remedy = KEY if status in (401, 403) else ADDRESS
    return ConvexConfigurationError(detail, status, remedy=remedy)


def of_function(status: int, message: str, data: object) -> ConvexError:
    """What a function's own error means. Source: docs.convex.dev/functions/error-handling."""
    if data is not None:
        return ConvexFunctionError(_coded(message, data), data, status)
    detail = line(message)
    if _REDACTED.fullmatch(detail):
        return ConvexFunctionError(detail, None, status, certain=False, remedy=LOOK_UP)
    for signs, make in _SIGNS:
        if any(sign in message for sign in signs):
            return make(detail, status)
    return ConvexFunctionError(detail, None, status)


def not_convex(status: int) -> ConvexError:
    """What to make of an answer that is not Convex's JSON: perhaps a proxy's page, or cut off."""
    return ConvexUnavailable(
        f"answered {status} with something that is not Convex's JSON",
        ErrorKind.HTTP_STATUS,
        status_code=status,
        remedy=ADDRESS,
    )


def line(text: str) -> str:
    """A text of the deployment's as one line of bounded length."""
    return " ".join(text.split())[:DETAIL_CHARACTERS]


def decode(answer: bytes) -> dict[str, object]:
    """An answer's JSON object; empty when it is none."""
    try:
        document = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _not_deployed(detail: str, status: int) -> ConvexError:
    return ConvexNotDeployed(detail, status, remedy=DEPLOY)


def _refused(remedy: str, *, certain: bool = True) -> Callable[[str, int], ConvexError]:
    return lambda detail, status: ConvexFunctionError(
        detail, None, status, certain=certain, remedy=remedy
    )


# What Convex's own messages begin with or contain, in the order in which they are looked for.
_SIGNS: tuple[tuple[tuple[str, ...], Callable[[str, int], ConvexError]], ...] = (
    (("Could not find public function", "Trying to execute"), _not_deployed),
    (("ArgumentValidationError", "ReturnsValidationError"), _refused(COMPARE)),
    (("does not match the schema",), _refused(COMPARE)),
    (("too large", "too many fields"), _refused(SHORTEN)),
    (("Function execution timed out",), _refused(OVERLOADED, certain=False)),
)


def _coded(message: str, data: object) -> str:
    """A ConvexError's code and message, once, with the request's id to look it up by."""
    if not (isinstance(data, dict) and {"code", "message"} <= data.keys()):
        return line(f"{message} {orjson.dumps(data).decode()}")
    found = _REDACTED.match(line(message))
    request = f" [Request ID: {found[1]}]" if found else ""
    return line(f"{data['code']}: {data['message']}{request}")


def _reason(answer: bytes) -> str:
    document = decode(answer)
    if "code" in document:
        return line(f"{document['code']}: {document.get('message')}")
    return line(answer.decode("utf-8", "replace"))
