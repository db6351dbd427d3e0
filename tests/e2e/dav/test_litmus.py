# SPDX-License-Identifier: Apache-2.0
"""litmus, the compliance suite for WebDAV servers: full marks, without a warning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.conftest import USERS
from tests.support.dav_folder import DavFolder
from tests.support.processes import run

SUITES = {"basic": 16, "copymove": 13, "props": 30, "locks": 41, "http": 4}
"""How many tests a suite has at least; one that cannot go on skips the rest."""

pytestmark = [pytest.mark.needs("litmus"), pytest.mark.parametrize("suite", SUITES)]


def check(suite: str, folder: DavFolder, place: Path, *credentials: str) -> None:
    """Run one suite against a folder."""
    said = run(["litmus", f"{folder.url}/", *credentials], env={"TESTS": suite}, cwd=place, expect=None)
    told = said.out.replace("\r", "\n")
    assert said.returncode == 0, told
    [(tests, passed, failed)] = re.findall(r"of (\d+) tests run: (\d+) passed, (\d+) failed", told)
    assert int(tests) >= SUITES[suite], told
    assert (passed, failed) == (tests, "0"), told
    assert "WARNING" not in told, told


def test_every_test_of_litmus_passes(folder: DavFolder, suite: str, tmp_path: Path) -> None:
    check(suite, folder, tmp_path)


def test_every_test_of_litmus_passes_for_a_known_user_on_two_workers(
    guarded_folder: DavFolder, suite: str, tmp_path: Path
) -> None:
    check(suite, guarded_folder, tmp_path, "alice", USERS["alice"])
