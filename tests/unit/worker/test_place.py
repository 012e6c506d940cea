"""What a worker is told on its command line is what the parent meant."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from gateway.worker.place import Place, add_arguments, place_of


@pytest.mark.parametrize("unix", [None, 9])
def test_a_place_is_read_as_it_was_written(unix: int | None) -> None:
    place = Place(
        slot=1,
        workers=2,
        lifeline=7,
        control=Path("/run/gateway-x/1-2.sock"),
        public=((3, 4), (5, 6)),
        socket=unix,
    )
    parser = argparse.ArgumentParser()
    add_arguments(parser)

    assert place_of(parser.parse_args(list(place.arguments()))) == place


def test_the_parents_socket_is_beside_the_workers() -> None:
    place = Place(0, 2, 7, Path("/run/gateway-x/0-1.sock"), ((3,), (4,)))

    assert place.parent == Path("/run/gateway-x/parent.sock")
