"""Fields that end at the gateway (RFC 9110 section 7.6.1), and structured values (RFC 9651)."""

from __future__ import annotations

import math
import re

from multidict import CIMultiDict, istr

# RFC 9110 section 7.6.1 and the proxy's own authentication (section 11.7). `Trailer` goes with the
# trailers, which are not forwarded.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_HOP_BY_HOP = tuple(istr(name) for name in sorted(HOP_BY_HOP))  # found thrice as fast as by str
_CONNECTION = istr("Connection")
# Framing and authority cannot be dropped by a sender who lists them (section 7.6.1: MUST NOT).
_KEPT = frozenset({"content-length", "host"})
_PERSISTENCE = frozenset({"close", "keep-alive"})
_REFUSED = re.compile(r"q\s*=\s*0(?:\.0{0,3})?")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_MAX_INTEGER = 999_999_999_999_999


def connection_options(headers: CIMultiDict[str]) -> frozenset[str]:
    """The field names, lower-cased, that `Connection` declares to be for this hop alone."""
    if _CONNECTION not in headers:
        return frozenset()
    listed = ",".join(headers.getall(_CONNECTION)).split(",")
    return frozenset(option for each in listed if (option := each.strip().lower()))


def nominated_fields(headers: CIMultiDict[str]) -> frozenset[str]:
    """The options of `Connection` that name fields, not how long the connection lasts."""
    return connection_options(headers) - _PERSISTENCE


def strip_hop_by_hop(headers: CIMultiDict[str]) -> CIMultiDict[str]:
    """A copy without the fields for one hop, those that `Connection` lists included."""
    copy = CIMultiDict(headers)
    for option in connection_options(headers) - _KEPT:
        copy.popall(option, None)
    for name in _HOP_BY_HOP:
        if name in copy:
            del copy[name]
    return copy


def append_member(headers: CIMultiDict[str], name: str, member: str) -> None:
    """Add a member at the end of a list field, all its lines joined into one (RFC 9110 5.3)."""
    headers[name] = ", ".join([*headers.getall(name, ()), member])


def vary_on(headers: CIMultiDict[str], name: str) -> None:
    """Say that an answer depends on a request's field (RFC 9110 section 12.5.5)."""
    listed = ",".join(headers.getall("Vary", ())).lower().split(",")
    known = {each.strip() for each in listed}
    if "*" not in known and name.lower() not in known:
        append_member(headers, "Vary", name)


def accepts(accepted: str, media_type: str) -> bool:
    """True when `Accept` names this type itself, not by a range (RFC 9110 section 12.5.1)."""
    for each in accepted.lower().split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        if name == media_type:
            return not any(_REFUSED.fullmatch(parameter) for parameter in parameters)
    return False


def structured_string(text: str) -> str:
    """A String of RFC 9651 section 3.3.3. Raises ValueError for what is not printable ASCII."""
    if not _PRINTABLE.fullmatch(text):
        raise ValueError(f"{text!r} holds characters other than printable ASCII")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def structured_integer(number: float) -> str:
    """An Integer of RFC 9651 section 3.3.1, rounded up: a wait is never announced too short."""
    return str(max(-_MAX_INTEGER, min(math.ceil(number), _MAX_INTEGER)))
