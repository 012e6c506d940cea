"""One range of a body."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.byte_range import ByteRange, byte_range


@pytest.mark.parametrize(
    ("wanted", "found", "content_range"),
    [
        ("bytes=0-1", ByteRange(0, 2), "bytes 0-1/10"),
        ("Bytes= 3- ", ByteRange(3, 10), "bytes 3-9/10"),
        ("bytes=8-99", ByteRange(8, 10), "bytes 8-9/10"),
        ("bytes=-3", ByteRange(7, 10), "bytes 7-9/10"),
        ("bytes=-99", ByteRange(0, 10), "bytes 0-9/10"),
        ("bytes=10-", ByteRange(0, 0), "bytes */10"),
        ("bytes=-0", ByteRange(0, 0), "bytes */10"),
    ],
)
def test_a_range_is_cut_to_the_body(wanted: str, found: ByteRange, content_range: str) -> None:
    part = byte_range(wanted, 10)

    assert part == found
    assert part.content_range(10) == content_range
    assert part.is_satisfiable == ("*" not in content_range)


@pytest.mark.parametrize(
    "wanted",
    ["", "bytes", "bytes=", "bytes=-", "bytes=5-3", "bytes=0-1,3-4", "items=0-1", "bytes=a-b"],
)
def test_what_is_not_one_byte_range_is_ignored(wanted: str) -> None:
    assert byte_range(wanted, 10) is None


@given(st.integers(0, 50), st.integers(0, 50), st.binary(min_size=1, max_size=40))
def test_a_part_is_what_python_slices(first: int, last: int, body: bytes) -> None:
    part = byte_range(f"bytes={first}-{last}", len(body))

    if last < first:
        assert part is None
    else:
        assert part is not None
        assert body[part.start : part.end] == body[first : last + 1]
