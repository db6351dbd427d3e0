# SPDX-License-Identifier: Apache-2.0
"""The registry contract over `glancefs.registries.sql` on PostgreSQL and on MariaDB.

Threading: see the contract.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from glancefs.registries.base import Registry
from tests.contract.dead_property_contract import DeadPropertyContract
from tests.contract.folder_contract import FolderContract
from tests.contract.lock_contract import LockContract
from tests.contract.registry_contract import RegistryContract
from tests.support.databases import forget, registry_of


@pytest.mark.needs("postgresql")
class TestPostgresql(RegistryContract):
    examples = 8
    times = 3

    @staticmethod
    def open(folder: Path) -> Registry:
        return registry_of("postgresql", folder)

    @staticmethod
    def forget(folder: Path) -> None:
        forget("postgresql", folder)


@pytest.mark.needs("mariadb")
class TestMariadb(RegistryContract):
    examples = 8
    times = 3

    @staticmethod
    def open(folder: Path) -> Registry:
        return registry_of("mariadb", folder)

    @staticmethod
    def forget(folder: Path) -> None:
        forget("mariadb", folder)


@pytest.mark.needs("postgresql")
class TestPostgresqlFolders(FolderContract):
    examples = 8

    def make(self, folder: Path) -> Registry:
        return registry_of("postgresql", folder)

    def forget(self, folder: Path) -> None:
        forget("postgresql", folder)


@pytest.mark.needs("mariadb")
class TestMariadbFolders(FolderContract):
    examples = 8

    def make(self, folder: Path) -> Registry:
        return registry_of("mariadb", folder)

    def forget(self, folder: Path) -> None:
        forget("mariadb", folder)


@pytest.mark.needs("postgresql")
class TestPostgresqlLocks(LockContract):
    @staticmethod
    def open(folder: Path) -> Registry:
        return registry_of("postgresql", folder)

    @pytest.fixture(autouse=True)
    def look_through_none_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("glancefs.registries.sql_locks._FEW", -1)


@pytest.mark.needs("postgresql")
class TestPostgresqlDeadProperties(DeadPropertyContract):
    @staticmethod
    def open(folder: Path) -> Registry:
        return registry_of("postgresql", folder)


@pytest.mark.needs("mariadb")
class TestMariadbLocks(LockContract):
    @staticmethod
    def open(folder: Path) -> Registry:
        return registry_of("mariadb", folder)

    @pytest.fixture(autouse=True)
    def look_through_none_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("glancefs.registries.sql_locks._FEW", -1)


@pytest.mark.needs("mariadb")
class TestMariadbDeadProperties(DeadPropertyContract):
    @staticmethod
    def open(folder: Path) -> Registry:
        return registry_of("mariadb", folder)
