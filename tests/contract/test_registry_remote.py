# SPDX-License-Identifier: Apache-2.0
"""The registry contract over `glancefs.registries.remote`, with a real server behind it, and the same for the tree.

Threading: see the contract.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from glancefs.errors import RegistryUnavailable
from glancefs.registries.base import Changes, Registry
from glancefs.registries.remote import RemoteRegistry
from tests.contract.dead_property_contract import DeadPropertyContract
from tests.contract.folder_contract import FolderContract
from tests.contract.lock_contract import LockContract
from tests.contract.registry_contract import RegistryContract
from tests.contract.registry_model import an_image
from tests.support.registries import TOKEN, RegistryService, open_remote


class TestRemoteRegistry(RegistryContract):
    other_processes = 2
    times = 5
    examples = 15

    @staticmethod
    def open(folder: Path) -> Registry:
        return open_remote(folder)


def test_who_waits_for_a_change_hears_of_it_at_once(tmp_path: Path) -> None:
    with closing(open_remote(tmp_path)) as writer, closing(open_remote(tmp_path)) as listener:
        assert listener.tells_of_changes
        for _ in range(2):
            # What came before is news, and then there is none.
            listener.wait_for_change(timeout=60)
            heard: list[float] = []

            def wait(heard: list[float] = heard) -> None:
                began = time.monotonic()
                listener.wait_for_change(timeout=60)
                heard.append(time.monotonic() - began)

            waiting = threading.Thread(target=wait)
            waiting.start()
            time.sleep(0.5)
            assert not heard
            writer.add(an_image())
            waiting.join(90)
            # The server lets nobody wait longer than half a minute.
            assert heard
            assert heard[0] < 29
            writer.add(an_image())


def test_a_change_between_two_waits_is_not_missed(tmp_path: Path) -> None:
    with closing(open_remote(tmp_path)) as writer, closing(open_remote(tmp_path)) as listener:
        listener.wait_for_change(timeout=60)
        for number in range(6):
            added = writer.add(an_image())
            listener.wait_for_change(timeout=60)
            # What was heard while waiting, and what is asked for, are the same.
            for _ in range(2):
                assert listener.changes(since=number) == Changes(images=(added,), revision=number + 1)
        assert listener.changes(since=0, limit=2).revision == 2


def test_who_waits_for_a_registry_that_is_away_comes_back_to_ask(tmp_path: Path) -> None:
    service = RegistryService(tmp_path)
    with closing(RemoteRegistry(url=service.url, token=TOKEN, timeout=1)) as listener:
        listener.wait_for_change(timeout=60)
        stopping = threading.Timer(0.3, service.stop)
        stopping.start()
        listener.wait_for_change(timeout=60)
        stopping.join()
        with pytest.raises(RegistryUnavailable):
            listener.changes(since=0)
        listener.wait_for_change(timeout=60)


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
