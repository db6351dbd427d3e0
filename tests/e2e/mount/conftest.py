# SPDX-License-Identifier: Apache-2.0
"""What every test of the mount needs of the machine, and places to work in.

Threading: called by pytest from its main thread.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounting import Mount, Mounts
from tests.support.processes import Processes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ask for FUSE in all tests of this folder."""
    folder = Path(__file__).parent
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.needs("fuse"))


@pytest.fixture(scope="module")
def shared_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """One mount for all cases of a module: each works in a folder of its own."""
    folder = tmp_path_factory.mktemp("shared")
    with Processes(folder) as processes:
        mounts = Mounts(processes, folder)
        mount = mounts.mount()
        yield mount
        log = mount.log()
        mounts.end()
    assert "ERROR" not in log


@pytest.fixture(params=["mount", "disk"])
def place(request: pytest.FixtureRequest, shared_mount: Mount, tmp_path: Path) -> Path:
    """An empty folder on either file system."""
    name = re.sub(r"\W", "-", request.node.name)
    folder: Path = shared_mount / name if request.param == "mount" else tmp_path / "on-disk"
    folder.mkdir()
    return folder


@pytest.fixture
def on_mount(request: pytest.FixtureRequest, shared_mount: Mount) -> Path:
    """An empty folder on the mount, for what only it does like this."""
    folder: Path = shared_mount / request.node.name
    folder.mkdir()
    return folder
