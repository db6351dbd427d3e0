# SPDX-License-Identifier: Apache-2.0
"""Passing images through, without a mount: calls of libraries that are changed, and what happens where it can't be."""

import ctypes
import logging
import os
from pathlib import Path

import pyfuse3
import pytest

from glancefs.fuse.calls import Call, library_of
from glancefs.fuse.passthrough import Passthrough, Way
from glancefs.fuse.replies import Replies


def address_of(function: object) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]  # a function of C is a pointer, too


def test_a_library_calls_what_it_is_given_and_then_what_it_called_before(tmp_path: Path) -> None:
    asked: list[int] = []

    def refuse(descriptor: int) -> int:
        asked.append(descriptor)
        return -1

    ours = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(refuse)
    call = Call.find(ctypes.CDLL(pyfuse3.__file__), "syncfs")
    call.replace(address_of(ours))
    try:
        with pytest.raises(OSError, match=str(tmp_path)):
            pyfuse3.syncfs(str(tmp_path))
    finally:
        call.restore()
    assert len(asked) == 1
    pyfuse3.syncfs(str(tmp_path))
    assert len(asked) == 1


def test_a_table_that_is_made_read_only_is_changed_as_well() -> None:
    libfuse = ctypes.CDLL(library_of(Call.find(ctypes.CDLL(pyfuse3.__file__), "fuse_reply_open").address))
    ours = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0)
    call = Call.find(libfuse, "writev")
    call.replace(address_of(ours))
    with pytest.raises(LookupError):
        # What the table holds now belongs to none of the two libraries.
        Call.find(libfuse, "writev")
    call.restore()
    assert Call.find(libfuse, "writev").address == call.address


@pytest.mark.parametrize("name", ["fuse_no_such_function", "mkfifoat"])
def test_what_a_library_does_not_call_is_not_found(name: str) -> None:
    with pytest.raises(LookupError, match=f"does not call {name}"):
        Call.find(ctypes.CDLL(pyfuse3.__file__), name)


@pytest.mark.parametrize("is_wanted", [True, False])
def test_where_the_kernel_can_t_files_are_opened_as_ever(caplog: pytest.LogCaptureFixture, is_wanted: bool) -> None:  # noqa: FBT001 - a case of the test
    device = os.open(os.devnull, os.O_RDWR)
    with caplog.at_level(logging.INFO):
        replies = Replies()
        passthrough = Passthrough(replies=replies, is_wanted=is_wanted)
        with replies.changed(offers_passthrough=passthrough.is_wanted):
            passthrough.accept(device)
            assert caplog.records == []
            passthrough.tell()
            ways = [passthrough.enter(number, 5, os.O_RDONLY, is_image=True, descriptor=device) for number in range(3)]
            for number in range(4):
                passthrough.leave(number)
    os.close(device)
    assert ways == [Way.CACHED] * 3
    reasons = [record.message for record in caplog.records]
    assert len(reasons) == is_wanted
    assert all(reason.startswith("images are read through this process: ") for reason in reasons)
