# SPDX-License-Identifier: Apache-2.0
"""The store contract where every call crosses a network: fewer examples of the same, and how such stores are made.

Answers for the differences in numbers, not in promises. Threading: none of its own.
"""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings

from glancefs.stores.base import Store
from glancefs.stores.pipeline import BLOCK
from tests.contract.store_contract import PIECES, SAID, SIZE, START, STOP, StoreContract, check_pieces, check_range

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
