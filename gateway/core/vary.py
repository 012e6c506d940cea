"""Which requests a stored variant answers (RFC 9111 section 4.1)."""

from __future__ import annotations

from gateway.core.cache_control import Headers

Values = tuple[tuple[str, str | None], ...]

# Fields whose values are case-insensitive lists with weights, in which order means nothing
# (RFC 9110 sections 12.4.2 and 12.5).
_WEIGHTED = frozenset({"accept", "accept-charset", "accept-encoding", "accept-language"})
ANY = "*"


def varied_fields(response: Headers) -> frozenset[str]:
    """The fields, lower-cased, that `Vary` names in all its lines."""
    if "Vary" not in response:
        return frozenset()
    listed = ",".join(response.getall("Vary")).split(",")
    return frozenset(name for each in listed if (name := each.strip().lower()))


def vary_values(response: Headers, request: Headers) -> Values:
    """The request's normalised values of those fields, in the alphabet; None for an absent one."""
    return tuple((name, normalized(request, name)) for name in sorted(varied_fields(response)))


def is_answered_by(request: Headers, values: Values) -> bool:
    """True when the request has the values that a variant was made for."""
    return all(normalized(request, name) == value for name, value in values)


def normalized(headers: Headers, name: str) -> str | None:
    """All lines of a field as one value, without what means nothing in it; None when absent.

    Spaces around commas never do; of the `Accept` family neither case nor the order of members of
    the same weight.
    """
    if name not in headers:
        return None
    members = [part.strip() for part in ",".join(headers.getall(name)).split(",")]
    if name not in _WEIGHTED:
        return ",".join(members)
    spaceless = ["".join(member.lower().split()) for member in members]
    return ",".join(sorted(member for member in spaceless if member))
