# SPDX-License-Identifier: Apache-2.0
"""What the tests of the WebDAV door share: folders of their own on servers that many use.

Threading: called by pytest from its main thread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.conftest import USERS
from tests.support.dav_folder import DavFolder, basic
from tests.support.servers import RunningServer


def own_folder(server: RunningServer, name: str, headers: Mapping[str, str] | None = None) -> DavFolder:
    """Make a folder that is named for a test."""
    made = DavFolder(server=server, path="/dav/" + re.sub(r"\W+", "-", name).strip("-"), headers=headers or {})
    reply = made.ask("MKCOL")
    assert reply.status == 201, reply
    return made


@pytest.fixture
def folder(server: RunningServer, request: pytest.FixtureRequest) -> DavFolder:
    """An empty folder on a server that asks nobody who they are."""
    return own_folder(server, request.node.name)


@pytest.fixture
def guarded_folder(guarded_server: RunningServer, request: pytest.FixtureRequest) -> DavFolder:
    """An empty folder of alice's on a server with two workers that asks who is there."""
    return own_folder(guarded_server, request.node.name, basic("alice", USERS["alice"]))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree of files, some with names that have to be quoted."""
    top = tmp_path / "tree"
    for number, name in enumerate(("a.img", "sub/b c.img", "sub/deep/ü #1 100%+;=?.img", "sub/(d).img")):
        file = top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number]) * (150_000 + number))
    return top
