# SPDX-License-Identifier: Apache-2.0
"""What a file system does now and then, and what the file store makes of it."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from glancefs.errors import StoreFull
from glancefs.stores.file import FileStore


@pytest.mark.parametrize(("refusals", "free", "is_kept"), [(2, 1, True), (9, 1, False), (1, 0, False)])
def test_a_folder_that_is_refused_for_a_moment_is_made_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int, free: int, *, is_kept: bool
) -> None:
    """As ext4 does, now and then, with all the room there is; where there is none, nobody waits."""
    refused: list[str] = []
    make, look = os.mkdir, os.statvfs

    def mkdir(path: Path, *said: int) -> None:
        if len(path.name) == 2 and len(refused) < refusals:
            refused.append(path.name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        make(path, *said)

    def statvfs(path: Path) -> os.statvfs_result:
        fields = list(look(path))
        fields[4] *= free
        return os.statvfs_result(fields)

    store = FileStore(path=tmp_path / "store")
    monkeypatch.setattr(os, "mkdir", mkdir)
    with store.claim() as key:
        # Only the room for the folder is at stake.
        monkeypatch.setattr(os, "statvfs", statvfs)
        if is_kept:
            assert store.add(key, io.BytesIO(b"data"), size=None).size == 4
        else:
            with pytest.raises(StoreFull):
                store.add(key, io.BytesIO(b"data"), size=None)
    assert len(refused) == {(2, 1): 2, (9, 1): 4, (1, 0): 1}[refusals, free]
