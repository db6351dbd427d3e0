# SPDX-License-Identifier: Apache-2.0
"""Root and a server of another user share one data folder: what root makes there, the server can use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.apart import NOBODY, Apart

pytestmark = pytest.mark.needs("apart", "fuse")
GLANCEFS = (sys.executable, "-I", "-m", "glancefs")


@pytest.fixture
def data(apart: Apart, request: pytest.FixtureRequest) -> Path:
    """A data folder of a plain user, as the state of a service is."""
    return apart.folder(request.node.name, owner=NOBODY)


def strangers(apart: Apart, data: Path) -> list[str]:
    """What in a data folder is not its owner's."""
    return apart.run("find", data, "-not", "(", "-user", NOBODY, "-group", "nogroup", ")").out.splitlines()


def test_what_a_mount_of_root_s_adds_is_the_owner_s(apart: Apart, data: Path) -> None:
    point = apart.folder("point-of-root")
    apart.run("chown", f"{NOBODY}:nogroup", data)
    apart.run("mount", "-t", "glancefs", "-o", "allow_other", data, point)
    script = "mkdir d; echo one >d/a; echo two >.b; cp d/a .c; mv .c c; touch queued; exec 3>left; echo x >&3; cat d/a"
    apart.run("bash", "-c", f"cd {point}; {script}")
    # Whether root's writer is done, the mount has to be able to see in /proc.
    apart.run("bash", "-c", f"(echo one; echo two) >{point}/by-root")
    assert strangers(apart, data) == []
    assert apart.run(*GLANCEFS, "get", "--data", data, "d/a", "-o", "-", user=NOBODY).out == "one\n"
    assert apart.run("stat", "-c", "%U %s", point / "by-root").out == "root 8\n"
    apart.run("umount", point)
    assert strangers(apart, data) == []


def test_what_commands_of_root_s_make_is_the_owner_s_and_what_they_get_is_root_s(apart: Apart, data: Path) -> None:
    apart.run("chown", f"{NOBODY}:nogroup", data)
    # Each would do it by itself; one process is a sixth of the time.
    commands = [
        ["db", "upgrade"],
        ["add", "--name", "a", "--type", "raw"],
        ["upload", "a", "/etc/passwd"],
        ["add", "/etc/group"],
        ["gc"],
    ]
    script = f"from glancefs.cli import main\nfor words in {commands}: assert main([*words, '--data', '{data}']) == 0"
    apart.run(sys.executable, "-I", "-c", script)
    apart.run(*GLANCEFS, "user", "add", "--data", data, "--password-stdin", "ann", stdin=b"a password\n")
    assert strangers(apart, data) == []
    assert apart.run(*GLANCEFS, "get", "--data", data, "group", "-o", "-", user=NOBODY).out.startswith("root:")
    apart.run(*GLANCEFS, "get", "--data", data, "a", "-o", "/mnt/got")
    assert apart.run("stat", "-c", "%U", "/mnt/got").out == "root\n"
