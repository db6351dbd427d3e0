# SPDX-License-Identifier: Apache-2.0
"""What a WebDAV client locked, seen from a mount: EBUSY, and a line that says who has it."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from glancefs.context import RequestContext
from tests.support.mounting import LOCAL, Mount, eventually

PROMISE = "What a WebDAV client has locked is not changed through a mount: EBUSY, and the log says who locked it."


def moved_away(path: Path) -> None:
    path.rename(path.with_name("moved"))


CHANGES: dict[str, Callable[[Path], object]] = {
    "write": lambda path: path.write_bytes(b"new"),
    "remove": Path.unlink,
    "rename": moved_away,
    "touch": lambda path: os.utime(path, (1, 1)),
    "setfattr": lambda path: os.setxattr(path, "user.glance.property.k", b"v"),
    "create beside it": lambda path: path.with_name("new").write_bytes(b"new"),
    "mkdir beside it": lambda path: path.with_name("new").mkdir(),
    "rename the folder": lambda path: moved_away(path.parent),
}


@pytest.mark.promise(PROMISE)
def test_what_is_locked_is_busy_and_the_log_says_who_has_it(mounted: Mount) -> None:
    (mounted / "folder").mkdir()
    file = mounted / "folder/a.raw"
    file.write_bytes(b"old")
    with mounted.core() as core:
        lock = core.locks.acquire(LOCAL, "folder", guards=None, is_deep=True, seconds=600)
        for change in CHANGES.values():
            with pytest.raises(OSError, match="busy") as refused:
                change(file)
            assert refused.value.errno == errno.EBUSY
        told = [line for line in mounted.log().splitlines() if "'folder' is locked by local until" in line]
        assert len(told) == len(CHANGES)
        assert "'folder' is locked by local until" in (mounted / ".glance/errors").read_text()
        assert file.read_bytes() == b"old"
        core.locks.release(LOCAL, lock.token)
    file.write_bytes(b"new")
    assert mounted.content("folder/a.raw") == b"new"


@pytest.mark.promise(PROMISE)
def test_the_locks_of_every_user_bind_the_mount_of_the_machine(mounted: Mount) -> None:
    (mounted / "a.raw").write_bytes(b"data")
    alice = RequestContext(user="alice")
    with mounted.core() as core:
        image = mounted.image("a.raw")
        core.registry.replace(replace(image, owner="alice"), expected_revision=image.revision)
        lock = core.locks.acquire(alice, "a.raw", guards="alice", seconds=600)
        with pytest.raises(OSError, match="busy"):
            (mounted / "a.raw").unlink()
        core.locks.release(alice, lock.token)
        (mounted / "a.raw").unlink()
    eventually(lambda: not (mounted / "a.raw").exists())
