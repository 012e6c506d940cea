"""An answer's head that is sent again and again, but for what varies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from multidict import CIMultiDict, istr

from gateway.core.message import Request, Response
from gateway.policy.step import Step
from gateway.web.wire import render_head

_DATE = istr("Date")
_CLOSE = b"Connection: close\r\n\r\n"
_GAP = "\0"  # no field can hold it


class Template:
    """An answer's head with gaps for what varies."""

    __slots__ = ("_has_date", "_text", "_values")

    def __init__(self, text: str, values: Sequence[Callable[[], str]], *, has_date: bool) -> None:
        self._text = text
        self._values = tuple(values)
        self._has_date = has_date

    def filled(self, at: float, date: Callable[[float], str], *, close: bool) -> bytes:
        """The head at `at`, epoch seconds; `close` says that the connection ends with its answer.

        `date` gives `Date` where the upstream gave none.
        """
        values = [value() for value in self._values]
        if not self._has_date:
            values.append(date(at))
        head = (self._text % tuple(values)).encode("utf-8", "surrogateescape")
        return head[:-2] + _CLOSE if close else head


def template(steps: Sequence[Step], request: Request, response: Response) -> Template | None:
    """The head of an answer that is not rendered yet, with gaps for what its steps vary.

    None where a field that varies is not there once.
    """
    varying: dict[str, list[Callable[[], str]]] = {}
    headers = CIMultiDict(response.headers)
    for step in steps:
        for name, value in step.varying.items():
            varying.setdefault(name.lower(), []).append(value)
            if len(headers.getall(name, ())) != 1:
                return None
            headers[name] = _GAP
    has_date = _DATE in headers
    if not has_date:
        headers[_DATE] = _GAP
    marked = Response(response.status, headers, response.body, response.reason)
    text = render_head(request.method, marked, "", close=False).decode("utf-8", "surrogateescape")
    # In the order of the gaps: that of the fields, the date's last.
    values = [_joined(varying[each]) for name in headers if (each := name.lower()) in varying]
    return Template(text.replace("%", "%%").replace(_GAP, "%s"), values, has_date=has_date)


def _joined(values: Sequence[Callable[[], str]]) -> Callable[[], str]:
    if len(values) == 1:
        return values[0]
    return lambda: ", ".join([value() for value in values])
