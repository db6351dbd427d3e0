# SPDX-License-Identifier: Apache-2.0
"""Servers, mounts and writers that start in a moment: forks of a process that has everything loaded already.

Run as ``python -m tests.e2e.nursery``; each line of its input names a log and the words of a command. What it
forks is the product's own command line, or `busy_writer`; only the loading is spared, which is most of a short life.

Threading: the nursery has one thread. `Nursery` may be used from many.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.e2e.mount import busy_writer
from tests.support.capabilities import ROOT
from tests.support.processes import DIE_WITH_PARENT, PATIENCE, environment

_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
WRITER = "writer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Newborn:
    """A process that was forked; what it prints is in its log."""

    pid: int
    log: Path

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended; its id is given to nobody else while the test runs."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """End it and its whole group as a power cut would, and wait for that."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self, *, patience: float = PATIENCE) -> None:
        """Wait for its end."""
        deadline = time.monotonic() + patience
        while self.is_alive:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.005)

    def wait_for(self, pattern: str, *, patience: float = PATIENCE) -> re.Match[str]:
        """Wait until it has said something."""
        deadline = time.monotonic() + patience
        while True:
            was_alive = self.is_alive
            if found := re.search(pattern, self.log.read_text()):
                return found
            assert was_alive, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.005)


@dataclass(slots=True, kw_only=True)
class Nursery:
    """The process that forks."""

    process: subprocess.Popen[str]
    folder: Path
    lock: threading.Lock
    born: list[Newborn]

    def bear(self, *words: str) -> Newborn:
        """Start a command: ``mount`` or ``serve`` and what follows it, or `WRITER` and its arguments."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self.lock:
            log = self.folder / f"{len(self.born)}-{words[0]}.log"
            log.touch()
            self.process.stdin.write(json.dumps([str(log), *words]) + "\n")
            self.process.stdin.flush()
            newborn = Newborn(pid=int(self.process.stdout.readline()), log=log)
            self.born.append(newborn)
        return newborn

    def kill(self) -> None:
        """End everything that is still alive."""
        for newborn in self.born:
            newborn.kill()


@contextmanager
def open_nursery(folder: Path, *, env: Mapping[str, str] | None = None) -> Iterator[Nursery]:
    """Start the process that forks; what is still alive at the end is killed. ``env`` configures all that it forks."""
    folder.mkdir()
    words = [*DIE_WITH_PARENT, sys.executable, "-m", __name__]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment(env)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        nursery = Nursery(process=process, folder=folder, lock=threading.Lock(), born=[])
        try:
            yield nursery
        finally:
            nursery.kill()
            assert process.stdin is not None
            process.stdin.close()


def _become(log: str, words: list[str]) -> NoReturn:
    status = 1
    try:
        # As a command that a test starts, it leads a group of its own.
        os.setsid()
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, stream in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
            os.dup2(number, stream)
        if words[0] == WRITER:
            with contextlib.suppress(OSError):
                busy_writer.work(*words[1:])
            status = 0
        else:
            from glancefs.cli import main  # noqa: PLC0415 - loaded before the fork

            status = main(words)
    finally:
        os._exit(status)


def _serve() -> None:
    from gateway import application, server  # noqa: PLC0415 - the test's own process need not load it
    from glancefs import assembly, cli  # noqa: PLC0415 - as above
    from glancefs.cli import mount, root, serve  # noqa: PLC0415 - as above
    from glancefs.fuse import daemon  # noqa: PLC0415 - as above
    from glancefs.fuse import mount as fuse_mount  # noqa: PLC0415 - as above

    assert all((application, server, assembly, cli, mount, root, serve, daemon, fuse_mount))
    # The kernel then keeps no dead children.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        log, *words = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(log, words)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
