"""Lua scripts: a `.lua` file each, loaded once, called by their SHA-1."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """One script. Every key it touches is in KEYS, or shares the hash tag of `KEYS[1]`."""

    name: str
    text: bytes
    sha: bytes


def load_script(name: str, *before: str) -> Script:
    """The script of `<name>.lua` beside this module, the files `before` it in front of it."""
    parts = (files(__package__).joinpath(f"{part}.lua") for part in (*before, name))
    text = b"\n".join(part.read_bytes() for part in parts)
    # SHA-1 is the protocol's name for a script (EVALSHA), not a protection of anything.
    sha = hashlib.sha1(text, usedforsecurity=False).hexdigest()
    return Script(name, text, sha.encode())
