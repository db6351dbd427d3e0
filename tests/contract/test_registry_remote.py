# SPDX-License-Identifier: Apache-2.0
"""The registry contract over `glancefs.registries.remote`, with a real server behind it, and the same for the tree.

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
from tests.support.registries import open_remote


class TestRemoteRegistry(RegistryContract):
    other_processes = 2
    times = 5
    examples = 15

    @staticmethod
    def open(folder: Path) -> Registry:
        return open_remote(folder)


class TestRemoteFolders(FolderContract):
    examples = 10

    def make(self, folder: Path) -> Registry:
        return open_remote(folder)


class TestRemoteLocks(LockContract):
    @staticmethod
    def open(folder: Path) -> Registry:
        return open_remote(folder)


# A full store is the operator's to know of, where the server is.
@pytest.mark.expect_log("There is room for", optional=True)
class TestRemoteDeadProperties(DeadPropertyContract):
    @staticmethod
    def open(folder: Path) -> Registry:
        return open_remote(folder)
