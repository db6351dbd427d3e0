# SPDX-License-Identifier: Apache-2.0
"""What every test of the mount needs of the machine.

Threading: called by pytest from its main thread.
"""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ask for FUSE in all tests of this folder."""
    folder = Path(__file__).parent
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.needs("fuse"))
