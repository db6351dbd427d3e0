# SPDX-License-Identifier: Apache-2.0
"""Small file systems that are really there, to be filled to the brim or taken away.

Answers for mounting and unmounting them; root is needed. Does not decide who tests what on them.

Threading: used by one test at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import run

_FLAGS = {"xfs": ["-q", "-f"], "btrfs": ["-q", "-f"]}


@contextmanager
def mounted(folder: Path, *, kind: str, size: int) -> Iterator[Path]:
    """Mount an empty file system of this kind (``tmpfs``, ``ext4``, ``xfs``, …) and this many bytes below a folder."""
    place = folder / f"{kind}-mounted"
    place.mkdir()
    if kind == "tmpfs":
        run(["mount", "-t", "tmpfs", "-o", f"size={size}", "glancefs-test", place])
    else:
        image = folder / f"{kind}.img"
        with image.open("wb") as file:
            file.truncate(size)
        run([f"mkfs.{kind}", *_FLAGS.get(kind, ["-q", "-F", "-m", "0"]), image])
        run(["mount", "-o", "loop", image, place])
    try:
        yield place
    finally:
        run(["umount", place])


@contextmanager
def overlaid(folder: Path) -> Iterator[Path]:
    """Mount an empty overlay below a folder: a file system that lies upon another one."""
    lower, upper, work, place = places = [folder / name for name in ("lower", "upper", "work", "overlay")]
    for each in places:
        each.mkdir()
    run(["mount", "-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", "glancefs-test", place])
    try:
        yield place
    finally:
        # Lazily: a daemon that the test has left behind is ended afterwards.
        run(["umount", "--lazy", place])
