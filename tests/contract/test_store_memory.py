# SPDX-License-Identifier: Apache-2.0
"""The store contract over `glancefs.stores.memory`."""

from __future__ import annotations

from pathlib import Path

import pytest

from glancefs.stores.base import Store
from glancefs.stores.memory import MemoryStore
from tests.contract.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    def make(self, folder: Path) -> Store:
        return MemoryStore()

    @pytest.fixture
    def small_store(self, tmp_path: Path) -> Store:
        return MemoryStore(capacity=32 * 1024 * 1024)


def test_it_says_that_nothing_outlives_the_process() -> None:
    assert not MemoryStore().capabilities.is_persistent
