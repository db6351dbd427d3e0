# SPDX-License-Identifier: Apache-2.0
"""The registry contract over `glancefs.registries.sql` on SQLite.

Threading: see the contract.
"""

from __future__ import annotations

from pathlib import Path

from glancefs.registries.base import Registry
from glancefs.registries.sql import SqlRegistry, registry_url
from tests.contract.registry_contract import RegistryContract


class TestSqlRegistry(RegistryContract):
    @staticmethod
    def open(folder: Path) -> Registry:
        return SqlRegistry(url=registry_url(folder), migrate=True)
