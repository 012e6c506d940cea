"""HTTP dates, read strictly: a date that is not one of the three forms is no date (RFC 9110)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY = r"(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY = r"(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_FORMS = tuple(
    re.compile(form, re.IGNORECASE | re.ASCII)
    for form in (
        rf"{_DAY}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_TIME} GMT",  # IMF-fixdate
        rf"{_LONG_DAY}, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_TIME} GMT",  # RFC 850, obsolete
        rf"{_DAY} {_MONTH} (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",  # asctime, obsolete
    )
)


def parse_http_date(text: str, now: float) -> float | None:
    """Epoch seconds of a date after RFC 9110 section 5.6.7; None for anything else.

    Case means nothing in it, every other byte does. A year of two digits is the one nearest to
    `now` that is not more than 50 years ahead.
    """
    for form in _FORMS:
        if found := form.fullmatch(text):
            return _timestamp(found, now)
    return None


def format_http_date(at: float) -> str:
    """The preferred form, IMF-fixdate, whatever the process's locale."""
    moment = datetime.fromtimestamp(int(at), UTC)
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1].title()
    return f"{day}, {moment:%d} {month} {moment.year:04} {moment:%H:%M:%S} GMT"


def _timestamp(found: re.Match[str], now: float) -> float | None:
    year = int(found["year"])
    if len(found["year"]) == 2:
        this_year = datetime.fromtimestamp(now, UTC).year
        year += this_year - this_year % 100
        if year > this_year + 50:
            year -= 100
    # A leap second has no place in a datetime: it counts as the second before it.
    second = min(int(found["second"]), 59) if found["second"] == "60" else int(found["second"])
    month = _MONTHS.index(found["month"].lower()) + 1
    clock = (int(found["hour"]), int(found["minute"]), second)
    try:
        return datetime(year, month, int(found["day"]), *clock, tzinfo=UTC).timestamp()
    except ValueError:
        return None
