"""python -m benchmarks.scale: the tables of docs/scaling.md, from the latest results."""

from __future__ import annotations

import orjson

from benchmarks.report import LATEST
from benchmarks.scale.table import tables

if __name__ == "__main__":
    print(tables(orjson.loads(LATEST.read_bytes())), end="")
