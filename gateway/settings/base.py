"""What models of settings are made of: durations, sizes, a base that refuses unknown keys."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)")


def parse_duration(value: Any) -> Any:
    """`500ms`, `15s`, `1h` or a number of seconds, as seconds.

    Raises ValueError saying what a duration looks like.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        return float(found[1]) * _UNITS[found[2]]
    raise ValueError(f"{value!r} is not a duration; write it like 500ms, 15s, 5m or 1h")


def parse_size(value: Any) -> Any:
    """`64KiB`, `1MiB` or a number of bytes, as bytes. Raises ValueError likewise."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        return int(found[1]) * _SIZES[found[2]]
    raise ValueError(f"{value!r} is not a size; write it like 64KiB, 1MiB or 1048576")


_TEXT = {"anyOf": [{"type": "string"}, {"type": "number"}]}
Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0),
    WithJsonSchema({**_TEXT, "examples": ["15s"]}),
]
PositiveSeconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(gt=0),
    WithJsonSchema({**_TEXT, "examples": ["15s"]}),
]
Size = Annotated[
    int, BeforeValidator(parse_size), Field(gt=0), WithJsonSchema({**_TEXT, "examples": ["1MiB"]})
]
Port = Annotated[int, Field(ge=0, le=65535)]
Mode = Literal["enforce", "shadow"]


class Model(BaseModel):
    """Frozen; a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
