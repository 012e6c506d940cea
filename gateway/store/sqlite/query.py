"""Named queries: a `.sql` file beside this module holds several, each after a `-- name:` line."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

_MARK = "-- name: "


def load_queries(name: str) -> Mapping[str, str]:
    """The queries of `<name>.sql` by their names; raises ValueError when a name comes twice."""
    text = (files(__package__) / f"{name}.sql").read_text(encoding="utf-8")
    queries: dict[str, str] = {}
    for part in text.split(_MARK)[1:]:
        title, _, body = part.partition("\n")
        if title in queries:
            raise ValueError(f"{name}.sql has two queries named {title}")
        queries[title] = body.strip()
    return queries
