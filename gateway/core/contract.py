"""The job contract compiled: which paths are about jobs, and what their answers say."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import jmespath
import orjson
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from gateway.core.job import Observation, State, finite, percentage
from gateway.core.route import Route

CREATE, STATUS, DETAILS = "job-create", "job-status", "job-details"
STREAM, LIST, CANCEL = "job-stream", "job-list", "job-cancel"
ANY_STATE = "*"
_SURELY_SHALLOW = 200  # opening brackets; JSON is written at most 254 levels deep
_SEGMENT = "!$&'()*+,:=@~"  # what quoting leaves alone besides letters, digits and `_.-`

FIELDS = (
    "id",
    "subject",
    "state",
    "stage",
    "percentage",
    "stages_completed",
    "total_stages",
    "eta_seconds",
    "created_at",
    "error",
    "results",
    "callback_url",
)


class Unreadable(Exception):
    """An answer that says nothing usable of a job; `reason` is a bounded metric label."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ContractRoute:
    """One route of the contract; `fields` override the contract's expressions for its answers."""

    name: str
    path: str
    methods: frozenset[str]
    fields: Mapping[str, str] = field(default_factory=dict)


class Mended(dict[str, Any]):
    """A JSON object that was not quite JSON until figures were taken out of it."""


def decode(body: bytes) -> Any:
    """The JSON document of an answer, such that it can be written again.

    What Python's own encoder writes and JSON lacks is mended: NaN, infinities and figures beyond a
    double become null, lone surrogates `?`; an object is then `Mended`. Raises `Unreadable` for
    anything else.
    """
    try:
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            document = _mended(body)
            if isinstance(document, dict):
                document = Mended(document)
        if body.count(b"[") + body.count(b"{") > _SURELY_SHALLOW:
            # Reading goes deeper than writing; the brackets stand for what is put around it later.
            orjson.dumps([[[[[[[[document]]]]]]]])
    except (ValueError, TypeError, RecursionError) as error:
        raise Unreadable("not_json", f"not a JSON document: {error}") from error
    return document


def _mended(body: bytes) -> Any:
    lenient = json.loads(body, parse_constant=_figure, parse_float=_figure, parse_int=_figure)
    return orjson.loads(json.dumps(lenient, ensure_ascii=False).encode("utf-8", "replace"))


def _figure(text: str) -> int | float | None:
    number = float(text)
    if not math.isfinite(number):
        return None
    return int(text) if text.removeprefix("-").isdecimal() else number


def _corrected(document: Mapping[str, Any], said: object) -> str | None:
    """What had to be put right before the answer made sense; a bounded metric label."""
    number = finite(said)
    if said is not None and (number is None or not 0 <= number <= 100):
        return "percentage"
    return "not_json" if isinstance(document, Mended) else None


def epoch(value: object) -> float | None:
    """Epoch seconds of an ISO 8601 time; one without a zone means UTC. None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class Contract:
    """How one upstream speaks of jobs.

    `states` maps our states to the upstream's words; `*` takes any other. Raises `ValueError` for
    an expression that does not compile or a word that is mapped twice.
    """

    def __init__(
        self,
        routes: Sequence[ContractRoute],
        fields: Mapping[str, str],
        states: Mapping[str, Sequence[str]],
        items: str = "jobs",
    ) -> None:
        self._routes = {route.name: route for route in routes}
        self.routes = tuple(Route(route.name, route.path, route.methods) for route in routes)
        # By template: several creation routes may each override fields.
        self._fields = {
            route.path: _compile({**fields, **route.fields}, route.path) for route in routes
        }
        self._default = _compile(fields, "jobs.fields")
        self._items = _expression(items, "jobs.list.items")
        self._states = _words(states)

    def has(self, name: str) -> bool:
        """True when the upstream offers this route."""
        return name in self._routes

    def path(self, name: str, job_id: str) -> str | None:
        """The path of a route for one job; None when the upstream has no such route.

        The id is one segment of it, whatever it holds (RFC 3986 section 3.3).
        """
        route = self._routes.get(name)
        if route is None:
            return None
        return route.path.replace("{job_id}", quote(job_id, safe=_SEGMENT))

    def template(self, name: str) -> str:
        """The path template of a route, `{job_id}` in its place; empty when there is none."""
        route = self._routes.get(name)
        return "" if route is None else route.path

    def expressions(self, template: str) -> dict[str, Mapping[str, Any]]:
        """The expressions of a route's fields as JMESPath parses them, by field."""
        fields = self._fields.get(template, self._default)
        return {name: expression.parsed for name, expression in fields.items()}

    def observe(
        self, document: Any, at: float, *, template: str = "", job_id: str | None = None
    ) -> Observation:
        """What one answer says of a job, asked for or received `at` (epoch seconds).

        `template` is the route's, for its own fields; `job_id` is who was asked about. Raises
        `Unreadable` when the answer names no job, another one, or no state.
        """
        if not isinstance(document, Mapping):
            raise Unreadable("not_object", "the answer is not a JSON object")
        found = {
            name: _search(expression, document)
            for name, expression in self._fields.get(template, self._default).items()
            if name != "callback_url"
        }
        said = found.get("id")
        if isinstance(said, int) and not isinstance(said, bool):
            said = str(said)
        if said is None:
            said = job_id
        if not isinstance(said, str) or not said:
            raise Unreadable("no_id", "the answer names no job")
        if job_id is not None and said != job_id:
            raise Unreadable("other_job", "the answer is about another job than was asked for")
        return Observation(
            job_id=said,
            at=at,
            state=self._state(found.get("state")),
            stage=_text(found.get("stage")),
            percentage=percentage(found.get("percentage")),
            stages_completed=_count(found.get("stages_completed")),
            total_stages=_count(found.get("total_stages")),
            eta_seconds=_duration(found.get("eta_seconds")),
            subject=_text(found.get("subject")),
            created_at=epoch(found.get("created_at")),
            error=_error(found.get("error")),
            results=found.get("results"),
            corrected=_corrected(document, found.get("percentage")),
        )

    def id_of(self, document: Any, template: str = "") -> str | None:
        """The job that an answer is about; None when it names none."""
        expression = self._fields.get(template, self._default).get("id")
        if expression is None or not isinstance(document, Mapping):
            return None
        said = _search(expression, document)
        if isinstance(said, int) and not isinstance(said, bool):
            return str(said)
        return _text(said)

    def state_of(self, document: Any, template: str = "") -> State:
        """The state an answer shows; raises `Unreadable` when it shows none."""
        if not isinstance(document, Mapping):
            raise Unreadable("not_object", "the answer is not a JSON object")
        expression = self._fields.get(template, self._default).get("state")
        return self._state(_search(expression, document) if expression else None)

    def items(self, document: Any) -> Sequence[Any]:
        """The entries of a job list; raises `Unreadable` when there is no array."""
        found = _search(self._items, document)
        if not isinstance(found, list):
            raise Unreadable("no_items", "the job list holds no array of jobs")
        return found

    def callback_url(self, request: Any, template: str = "") -> str | None:
        """The callback that a creation's own body asks for."""
        expression = self._fields.get(template, self._default).get("callback_url")
        return _text(_search(expression, {"request": request})) if expression else None

    def _state(self, word: object) -> State:
        if not isinstance(word, str) or not word:
            raise Unreadable("no_state", "the answer shows no state")
        state = self._states.get(word, self._states.get(ANY_STATE))
        if state is None:
            raise Unreadable("unknown_state", "the answer's state is not in the contract")
        return state


def _compile(fields: Mapping[str, str], where: str) -> dict[str, ParsedResult]:
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ValueError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(FIELDS)}")
    return {name: _expression(text, f"{where}.{name}") for name, text in fields.items()}


def _expression(text: str, where: str) -> ParsedResult:
    try:
        return jmespath.compile(text)
    except JMESPathError as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"{where}: {text!r} is not a JMESPath expression: {first}") from error


def _search(expression: ParsedResult, document: Any) -> Any:
    """What an expression finds; None where it cannot be evaluated, as `length()` of a number."""
    try:
        return expression.search(document)
    except (ValueError, TypeError, ArithmeticError, RecursionError):
        # JMESPathError is a ValueError; the library lets some of Python's own errors through.
        return None


def _words(states: Mapping[str, Sequence[str]]) -> dict[str, State]:
    words: dict[str, State] = {}
    for name, theirs in states.items():
        if name not in set(State):
            raise ValueError(f"jobs.states: {name!r} is not one of {', '.join(State)}")
        state = State(name)
        for word in theirs:
            if words.setdefault(word, state) is not state:
                raise ValueError(f"jobs.states: {word!r} means both {words[word]} and {state}")
    return words


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    number = finite(value)
    return None if number is None or number < 0 or number > 2**53 else int(number)


def _duration(value: object) -> float | None:
    number = finite(value)
    return None if number is None or number < 0 else number


def _error(value: object) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping) and value:
        return value
    if isinstance(value, str) and value:
        return {"error_type": "unknown_error", "error_message": value}
    return None
