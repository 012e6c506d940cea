"""What a client would prefer, but does not insist on (`Prefer`, RFC 7240)."""

from __future__ import annotations

import re
from collections.abc import Sequence

# A quoted string that does not end takes the rest with it.
_MEMBER = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*(?:"|\\?$))+')
_WAIT = re.compile(r'\s*wait\s*(?:=\s*(?:"(\d{1,9})"|(\d{1,9})))?\s*(?:;.*)?', re.IGNORECASE)


def wait_seconds(fields: Sequence[str]) -> int | None:
    """How long the client would wait (section 4.3); None when it does not say, or not readably.

    `fields` are all lines of `Prefer`. Of a preference given twice the first counts (section 2).
    """
    for member in _members(fields):
        if found := _WAIT.fullmatch(member):
            said = found[1] or found[2]
            return int(said) if said else None
    return None


def without_wait(fields: Sequence[str]) -> Sequence[str]:
    """The other preferences, for whoever is asked next."""
    return [member.strip() for member in _members(fields) if not _WAIT.fullmatch(member)]


def _members(fields: Sequence[str]) -> Sequence[str]:
    return [member for field in fields for member in _MEMBER.findall(field) if member.strip()]
