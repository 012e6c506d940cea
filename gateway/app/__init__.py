"""The composition root: the only package that knows every concrete part.

`store` picks the stores, `behind` makes what follows jobs and tells of them, `front` what clients
meet, `health` what probes read, `upkeep` what runs beside it all; `gateway` is the life of one
process, `serve` the process itself, `worker` one of several, with its `seat` beside the others.
"""

from gateway.app.serve import run

__all__ = ["run"]
