# SPDX-License-Identifier: Apache-2.0
"""The registry contract over `glancefs.registries.remote`, with a real server behind it, and the same for the tree.

Threading: see the contract.
"""

from __future__ import annotations

from pathlib import Path

from glancefs.registries.base import Registry
from tests.contract.folder_contract import FolderContract
from tests.contract.registry_contract import RegistryContract
from tests.support.registries import open_remote


class TestRemoteRegistry(RegistryContract):
    other_processes = 2
    examples = 15

    @staticmethod
    def open(folder: Path) -> Registry:
        return open_remote(folder)


class TestRemoteFolders(FolderContract):
    def make(self, folder: Path) -> Registry:
        return open_remote(folder)
