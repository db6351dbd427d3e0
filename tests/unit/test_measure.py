# SPDX-License-Identifier: Apache-2.0
"""No end of data is trusted.

Threading: none.
"""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glancefs.errors import SizeMismatch, UploadTooLarge
from glancefs.measure import MeasuredSource


def drain(source: MeasuredSource, block: int = 7) -> int:
    buffer = memoryview(bytearray(block))
    total = 0
    while count := source.readinto(buffer):
        total += count
    return total


@given(st.integers(0, 100), st.integers(1, 200))
def test_data_of_the_declared_size_pass(size: int, block: int) -> None:
    assert drain(MeasuredSource(io.BytesIO(bytes(size)), size=size, most=None), block) == size


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 200))
def test_data_of_another_size_are_refused(size: int, declared: int, block: int) -> None:
    source = MeasuredSource(io.BytesIO(bytes(size)), size=declared, most=None)
    if size == declared:
        assert drain(source, block) == size
    else:
        with pytest.raises(SizeMismatch, match=f"{declared} were declared"):
            drain(source, block)


def test_data_of_unknown_size_pass_up_to_the_most_a_node_takes() -> None:
    assert drain(MeasuredSource(io.BytesIO(bytes(100)), size=None, most=100)) == 100
    with pytest.raises(UploadTooLarge):
        drain(MeasuredSource(io.BytesIO(bytes(101)), size=None, most=100))
