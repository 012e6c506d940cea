"""Which hosts the gateway answers for (RFC 9110 section 7.4)."""

from __future__ import annotations

from collections.abc import Sequence

WILDCARD = "*."


class HostRule:
    """Names such as `api.example.com`, or `*.example.com` for every name below; none means any.

    Ports do not matter: the one a client used may be another's, a load balancer's or a Service's.
    """

    def __init__(self, names: Sequence[str]) -> None:
        lowered = [name.lower().rstrip(".") for name in names]
        self._exact = frozenset(name for name in lowered if not name.startswith(WILDCARD))
        self._suffixes = tuple(name[1:] for name in lowered if name.startswith(WILDCARD))
        self._any = not lowered

    def allows(self, authority: str) -> bool:
        """True when a request for `authority`, a `Host` value, is the gateway's to answer."""
        if self._any:
            return True
        name = host_name(authority)
        return name in self._exact or name.endswith(self._suffixes)


def host_name(authority: str) -> str:
    """The name or address of an authority, in lower case, without port and closing dot."""
    if authority.startswith("["):
        return authority.partition("]")[0].lower() + "]"
    return authority.partition(":")[0].lower().rstrip(".")
