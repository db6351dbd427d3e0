# SPDX-License-Identifier: Apache-2.0
"""A program that changes files of a mount without a pause, and keeps a ledger of what it was promised.

Run as ``python busy_writer.py MOUNT LEDGER SEED``. Before each change a line says what is about to be, and after it,
once the system call that promises it has returned 0, that it is. It ends when the mount does.

Answers for the work and for the form of the ledger, which `tests.e2e.mount.test_crash` reads. Imports nothing but the
standard library, so that it starts fast.

Threading: one thread; other writers work beside it under other names.
"""

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SIZES = (0, 10, 5000, 300_000, 3_000_000)
KEPT = 12
"""How many files a writer has at most; then it removes one."""


def data_of(seed: str, size: int) -> bytes:
    """Give what a writer puts into a file."""
    return random.Random(seed).randbytes(size)


def digest_of(data: bytes) -> str:
    """Give the form in which the ledger and the registry name data."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(slots=True)
class Writer:
    """One writer, in the mount's folder. Whatever it has promised to itself about a name is in the ledger."""

    ledger: int
    seed: str
    chance: random.Random
    has: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def note(self, *, is_done: bool, **names: str | None) -> None:
        """Write a line: what each name holds (None: nothing) is about to be so, or is so."""
        os.write(self.ledger, (json.dumps({"done": is_done, "names": names}) + "\n").encode())
        if is_done:
            for name, digest in names.items():
                self.has.pop(name, None)
                if digest is not None:
                    self.has[name] = digest

    def step(self) -> None:
        """Make one change of any kind."""
        self.count += 1
        if len(self.has) >= KEPT:
            self.remove()
            return
        new = f"{self.seed}-{self.count}"
        kinds: list[Callable[[str], None]] = [self.write, self.write, self.copy, self.by_dot_file]
        kinds += [self.replace, self.rename, self.rename_onto, self.remove] if len(self.has) > 1 else []
        self.chance.choice(kinds)(new)

    def data(self) -> bytes:
        """Make what the next file is to hold, never nothing: a file without a byte is no image."""
        size = self.chance.choice(SIZES) + 1 + self.count
        return data_of(f"{self.seed}:{self.count}", size)

    def any_file(self) -> str:
        """Choose one of the files."""
        return self.chance.choice(sorted(self.has))

    def write(self, name: str, *, flags: int = os.O_EXCL) -> None:
        """Write a file; the close is the promise."""
        data = self.data()
        self.note(is_done=False, **{name: digest_of(data)})
        self._put(name, data, flags)
        self.note(is_done=True, **{name: digest_of(data)})

    def replace(self, _: str) -> None:
        """Write an image anew."""
        self.write(self.any_file(), flags=os.O_TRUNC)

    def copy(self, name: str) -> None:
        """Have cp do it; its exit code is the promise."""
        data = self.data()
        self.note(is_done=False, **{name: digest_of(data)})
        words = ["cp", "/dev/stdin", name]
        done = subprocess.run(words, input=data, stderr=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise OSError("cp could not")
        self.note(is_done=True, **{name: digest_of(data)})

    def by_dot_file(self, name: str) -> None:
        """Work as rsync does; the rename is the promise."""
        data = self.data()
        self._put(f".{name}.tmp", data, os.O_EXCL | os.O_RDWR)
        self.note(is_done=False, **{name: digest_of(data)})
        Path(f".{name}.tmp").rename(name)
        self.note(is_done=True, **{name: digest_of(data)})

    def rename(self, new: str) -> None:
        """Give a file another name."""
        old = self.any_file()
        names = {old: None, new: self.has[old]}
        self.note(is_done=False, **names)
        Path(old).rename(new)
        self.note(is_done=True, **names)

    def rename_onto(self, _: str) -> None:
        """Put a file in the place of another one."""
        old, new = self.chance.sample(sorted(self.has), 2)
        names = {old: None, new: self.has[old]}
        self.note(is_done=False, **names)
        Path(old).rename(new)
        self.note(is_done=True, **names)

    def remove(self, _: str = "") -> None:
        """Remove a file."""
        name = self.any_file()
        self.note(is_done=False, **{name: None})
        Path(name).unlink()
        self.note(is_done=True, **{name: None})

    def _put(self, path: str, data: bytes, flags: int) -> None:
        descriptor = os.open(path, (flags | os.O_WRONLY if not flags & os.O_RDWR else flags) | os.O_CREAT)
        try:
            while data:
                data = data[os.write(descriptor, data[:200_000]) :]
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def work(mount: str, ledger: str, seed: str) -> None:
    """Work until a change fails. Raises OSError."""
    # From inside the mount, so that nothing is written to the folder below once it is gone.
    os.chdir(mount)
    if not Path(mount).is_mount():
        return
    book = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = Writer(ledger=book, seed=seed, chance=random.Random(seed))
    while True:
        writer.step()


if __name__ == "__main__":
    # What fails is that the mount has died, as it was to.
    with contextlib.suppress(OSError):
        work(*sys.argv[1:])
