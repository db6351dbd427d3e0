# SPDX-License-Identifier: Apache-2.0
"""Work done as other users of this machine, in processes of their own that root makes.

Answers for forking, for the user's number, group and working folder, and for what the work gives or raises. The folder
is entered before root is given up, so that nothing above it need let others through.

Threading: belongs to the main thread; who works has no other threads.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, NoReturn, TypeVar

import pytest

T = TypeVar("T")

SECONDS: Final = 60


class Doing(Generic[T]):
    """Work that has begun."""

    def __init__(self, pid: int, end: int) -> None:
        self.pid: Final = pid
        self._end: Final = end

    def result(self) -> T:
        """Wait for its end; a worker that does not answer fails the test."""
        said = b""
        while True:
            if not select.select([self._end], [], [], SECONDS + 10)[0]:
                pytest.fail("a worker does not answer", pytrace=False)
            piece = os.read(self._end, 1 << 16)
            if not piece:
                break
            said += piece
        os.close(self._end)
        os.waitpid(self.pid, 0)
        if not said:
            pytest.fail("a worker has died", pytrace=False)
        is_done, value = pickle.loads(said)  # noqa: S301 - from our own child
        if not is_done:
            raise value
        return value  # type: ignore[no-any-return]  # what the work gave


@dataclass(frozen=True, slots=True)
class Person:
    """A user of this machine, by number alone: none need be made for it."""

    uid: int

    def does(self, work: Callable[[], T], *, at: Path) -> T:
        """Have work done in a folder; gives what it gives, and raises the OSError that it raises."""
        return self.begins(work, at=at).result()

    def begins(self, work: Callable[[], T], *, at: Path) -> Doing[T]:
        """Have it begun."""
        ours, theirs = os.pipe()
        pid = os.fork()
        if not pid:
            _work(self.uid, work, at, theirs)
        os.close(theirs)
        return Doing(pid, ours)


def _work(uid: int, work: Callable[[], object], at: Path, end: int) -> NoReturn:
    said: tuple[bool, object]
    try:
        signal.alarm(SECONDS)
        os.chdir(at)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        said = (True, work())
    except OSError as error:
        said = (False, error)
    except BaseException:  # noqa: BLE001 - told to the test
        said = (False, RuntimeError(traceback.format_exc()))
    with os.fdopen(end, "wb") as pipe:
        pipe.write(pickle.dumps(said))
    os._exit(0)
