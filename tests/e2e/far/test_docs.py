# SPDX-License-Identifier: Apache-2.0
"""The how-to page of mounts of a server does what it says: each command, as it is printed.

Threading: none.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import USERS
from tests.e2e.test_engine_docs import Page
from tests.support.mounting import Mounts
from tests.support.servers import RunningServer


@pytest.mark.needs("getfattr")
def test_the_page_of_mounts_of_a_server(mounts: Mounts, guarded_server: RunningServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert USERS["alice"] == "wonderland"
    # A mount that a failure leaves behind is taken away with those of the test.
    mounts.guarded.append(home / "images")
    Page("remote-mount.md", {"http://127.0.0.1:9292": guarded_server.url}).check(env={}, home=home)
    assert not any((home / ".cache/glancefs/staging").rglob("*.json"))
