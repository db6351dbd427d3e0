# SPDX-License-Identifier: Apache-2.0
"""The registry contract over `glancefs.registries.sql` on SQLite.

Threading: see the contract.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from glancefs.registries.base import Registry
from glancefs.registries.sql import SqlRegistry, registry_url
from tests.contract.registry_contract import RegistryContract


class TestSqlRegistry(RegistryContract):
    @staticmethod
    def open(folder: Path) -> Registry:
        return SqlRegistry(url=registry_url(folder), migrate=True)

    @pytest.mark.soak
    def test_very_many_lists_are_what_the_promises_say(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.check_lists(tmp_path_factory, examples=500)
