# SPDX-License-Identifier: Apache-2.0
"""What every test gets: capabilities, log and leak checks, processes, real images.

Threading: called by pytest from its main thread.
"""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.support.capabilities",
    "tests.support.leaks",
    "tests.support.logs",
    "tests.support.processes",
    "tests.support.images",
    "tests.support.keystone",
    "tests.support.mounting",
    "tests.support.apart",
    "tests.support.cli",
    "tests.support.databases",
    "tests.support.rest",
    "tests.support.dav",
    "tests.support.swift",
    "tests.support.terminal",
]

# No test judges by the clock, so neither does Hypothesis; under CI the same code gives the same verdict every time.
settings.register_profile(
    "house",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
    print_blob=True,
)
settings.load_profile("house")


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Divide a run among half as many processes again as there are cores, since many tests wait."""
    cores = yield
    return cores + (cores + 1) // 2
