# SPDX-License-Identifier: Apache-2.0
"""The store contract where every call crosses a network: fewer examples of the same, and how such stores are made.

Answers for the differences in numbers, not in promises. Threading: none of its own.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings

from glancefs.errors import UploadTruncated
from glancefs.stores.base import Store
from glancefs.stores.pipeline import BLOCK, SMALL
from tests.contract.store_contract import (
    PIECES,
    SAID,
    SIZE,
    START,
    STOP,
    StoreContract,
    check_error_of_source,
    check_pieces,
    check_range,
)

PART = 2 * BLOCK
"""The size of parts in the tests, so that little data make large objects."""
PAGE = 10

_FEW_EXAMPLES = settings(
    max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
)


class ObjectStoreContract(StoreContract):
    """Subclass this as ``Test...`` and give the fixtures."""

    many = 2 * PAGE + 5
    turns = 2

    @_FEW_EXAMPLES
    @given(size=SIZE, pieces=PIECES, said=SAID)
    @example(size=3 * BLOCK, pieces=[BLOCK + 1, 7], said=10)
    @example(size=10, pieces=[1], said=3 * BLOCK)
    def test_neither_small_pieces_nor_a_wrong_size_change_what_is_kept(
        self, store: Store, size: int, pieces: list[int], said: int | None
    ) -> None:
        check_pieces(store, size, pieces, said)

    @_FEW_EXAMPLES
    @given(start=START, stop=STOP)
    @example(start=0, stop=0)
    @example(start=1000, stop=None)
    @example(start=999, stop=1000)
    def test_a_range_is_exactly_that_range(self, store: Store, start: int, stop: int | None) -> None:
        check_range(store, start, stop)

    @pytest.mark.parametrize(
        ("after", "is_size_known", "error"),
        [
            (0, False, UploadTruncated("gone")),
            (SMALL, True, OSError(28, "not ours")),
            (SMALL + BLOCK, False, ConnectionResetError("gone")),
            (7 * BLOCK + 1, True, UploadTruncated("gone")),
            (7 * BLOCK + 1, False, ConnectionResetError("gone")),
            (7 * BLOCK + 1, False, KeyboardInterrupt()),
        ],
    )
    def test_an_error_of_the_source_passes_through_and_nothing_stays(
        self, store: Store, after: int, error: BaseException, *, is_size_known: bool
    ) -> None:
        check_error_of_source(store, error, after=after, size=8 * BLOCK if is_size_known else None)
