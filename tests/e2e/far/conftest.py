# SPDX-License-Identifier: Apache-2.0
"""The fixtures of the tests of the mount, with a server between the mount and its images.

Threading: called by pytest from its main thread.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mount.conftest import on_mount
from tests.support.mounting import LIFE_SECONDS, LONG_LIFE_SECONDS, Mount, Mounts
from tests.support.processes import Processes

__all__ = ["on_mount"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ask for FUSE in all tests of this folder."""
    folder = Path(__file__).parent
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.needs("fuse"))


@pytest.fixture
def mounts(processes: Processes, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mounts]:
    """Make mounts of servers for one test."""
    is_long = request.node.get_closest_marker("soak") is not None
    made = Mounts(processes, tmp_path, LONG_LIFE_SECONDS if is_long else LIFE_SECONDS, is_far=True)
    yield made
    made.end()


@pytest.fixture
def mounted(mounts: Mounts) -> Mount:
    """One mount of a server on an empty data folder."""
    return mounts.mount()


@pytest.fixture
def place(request: pytest.FixtureRequest, shared_mount: Mount) -> Path:
    """An empty folder on the mount; a disk is tested where the mount is of one."""
    folder: Path = shared_mount / re.sub(r"\W", "-", request.node.name)
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def shared_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """One mount for all cases of a module: each works in a folder of its own."""
    folder = tmp_path_factory.mktemp("shared")
    with Processes(folder) as processes:
        mounts = Mounts(processes, folder, is_far=True)
        mount = mounts.mount()
        yield mount
        log = mount.log()
        mounts.end()
    assert "ERROR" not in log
