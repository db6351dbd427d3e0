# SPDX-License-Identifier: Apache-2.0
"""A command on a terminal of its own: what it shows there, what is typed, and how large it is.

Answers for the pseudo-terminal, and for what a person would see of pictures that begin in the upper left corner. Is no
emulator of terminals: what moves about in a picture is not followed.

Threading: `Terminal` belongs to the main thread; a thread reads what comes, so that the command never waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.support.processes import DIE_WITH_PARENT, Argument, check_for_traceback, environment

HOME: Final = "\x1b[H"
"""Where a picture begins."""
OTHER_SCREEN: Final = "\x1b[?1049h"
FIRST_SCREEN: Final = "\x1b[?1049l"
CTRL_C: Final = b"\x03"
_ESCAPE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command that has a terminal."""

    def __init__(
        self,
        command: Sequence[Argument],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        columns: int = 80,
        rows: int = 24,
    ) -> None:
        self.command: Final = [os.fspath(word) for word in command]
        self._ours, theirs = pty.openpty()
        self.resize(columns, rows)
        self.process: Final = subprocess.Popen(
            [*DIE_WITH_PARENT, "setsid", "--ctty", "--", *self.command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            # Whose size the run itself believes in is not this one's.
            env=environment({"TERM": "xterm-256color", "COLUMNS": "", "LINES": "", **(env or {})}),
            cwd=cwd,
        )
        os.close(theirs)
        self._seen: Final = bytearray()
        self._stopping: Final = os.pipe()
        self._reader: Final = threading.Thread(target=self._read, name="terminal")
        self._reader.start()

    def text(self) -> str:
        """Everything that was written so far."""
        return bytes(self._seen).decode(errors="replace").replace("\r\n", "\n")

    def plain(self) -> str:
        """The same without colours and movements."""
        return _ESCAPE.sub("", self.text())

    def picture(self) -> list[str]:
        """The lines of the latest picture that is complete, without blanks at their ends."""
        pictures = self.text().split(HOME)
        return [line.rstrip() for line in _ESCAPE.sub("", pictures[-1]).split("\n")]

    def wait_for(self, pattern: str, *, timeout: float = 60) -> list[str]:
        """Wait until a picture has it, and give that. Fails the test when the command ends first."""
        deadline = time.monotonic() + timeout
        picture: list[str] = []
        while True:
            is_over = self.process.poll() is not None
            before, picture = picture, self.picture()
            # One that is still being drawn has not all of its lines.
            if picture == before and re.search(pattern, "\n".join(picture), re.MULTILINE):
                return picture
            if is_over or time.monotonic() > deadline:
                pytest.fail(f"no {pattern!r} on the terminal:\n{self.plain()[-4000:]}", pytrace=False)
            time.sleep(0.05)

    def type(self, keys: bytes) -> None:
        """Press keys; `CTRL_C` is one of them."""
        os.write(self._ours, keys)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size, and tell the command."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def hang_up(self) -> None:
        """Close the terminal, as a window that is closed."""
        self._close()

    def wait(self, *, timeout: float = 60) -> int:
        """Wait for the end of the command; fails the test if it does not come, or with a traceback."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running: {' '.join(self.command)}\n{self.plain()[-4000:]}", pytrace=False)
        self._reader.join(timeout)
        check_for_traceback(self.plain(), self.command)
        return status

    def end(self) -> None:
        """End whatever still runs."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._close()

    def _close(self) -> None:
        if self._ours >= 0:
            os.write(self._stopping[1], b"!")
            self._reader.join()
            for descriptor in (self._ours, *self._stopping):
                os.close(descriptor)
            self._ours = -1

    def _read(self) -> None:
        # The other end is closed: Linux says it with EIO.
        with contextlib.suppress(OSError):
            while self._stopping[0] not in select.select([self._ours, self._stopping[0]], [], [])[0]:
                self._seen.extend(os.read(self._ours, 65_536))


class Terminals:
    """The terminals of one test."""

    def __init__(self) -> None:
        self.opened: Final[list[Terminal]] = []

    def open(self, command: Sequence[Argument], **said: object) -> Terminal:
        """Run a command on one; see `Terminal`."""
        terminal = Terminal(command, **said)  # type: ignore[arg-type]  # handed on
        self.opened.append(terminal)
        return terminal


@pytest.fixture
def terminals() -> Iterator[Terminals]:
    """Open terminals for one test; what runs on them is ended."""
    opened = Terminals()
    yield opened
    for terminal in opened.opened:
        terminal.end()
