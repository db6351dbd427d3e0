# SPDX-License-Identifier: Apache-2.0
"""A machine apart, as far as an administrator changes one: /usr and /etc of its own, mounts and processes of its own.

Answers for namespaces in which everything written below /usr and /etc stays above the real ones and vanishes with them,
whatever ends the test run, and for running commands there as root or as a plain user. Does not shield anything else:
what is written outside these folders and /mnt is written.

Threading: belongs to the main thread, as `Processes.start` does.
"""

from __future__ import annotations

import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.capabilities import ROOT
from tests.support.processes import Argument, Finished, Processes, run

SECONDS = 120.0
NOBODY = "nobody"
_CHANGED = (Path("/usr"), Path("/etc"))

# What others have mounted is let go first: here it would go on when they unmount it, and their daemons wait for that.
_SETUP = """
set -e
findmnt -rn -o TARGET,FSTYPE | while read -r point type; do
    case "$point $type" in
        /tmp/*|*" fuse"*) umount -c -i -l "$(printf %b "$point")" || true ;;
    esac
done
mount -t tmpfs -o mode=755 apart /mnt
over() {
    mkdir -p "/mnt/.over$1/up" "/mnt/.over$1/work"
    chmod --reference="$1" "/mnt/.over$1/up"
    mount -t overlay -o "lowerdir=$1,upperdir=/mnt/.over$1/up,workdir=/mnt/.over$1/work" apart "$1"
}
for folder in $OVER; do over "$folder"; done
for folder in $OPEN; do chmod o+x "$folder"; done
echo >/etc/fstab
echo apart
sleep infinity &
wait
"""


@dataclass(slots=True, kw_only=True)
class Apart:
    """The machine apart."""

    pid: int
    """Its first process."""

    @property
    def root(self) -> Path:
        """Its files, as this machine sees them."""
        return Path(f"/proc/{self.pid}/root")

    def folder(self, name: str, *, owner: str = "root") -> Path:
        """Make a folder in its /mnt, and give its path there."""
        place = Path("/mnt", name)
        self.run("install", "--directory", "--owner", owner, place)
        return place

    def write(self, path: Path, text: str) -> None:
        """Write one of its files."""
        (self.root / path.relative_to("/")).write_text(text)

    def run(
        self, *words: Argument, user: str | None = None, expect: int | None = 0, stdin: bytes = b"", bare: bool = False
    ) -> Finished:
        """Run a command there; ``bare`` leaves it no environment at all, as a boot does."""
        entering: list[Argument] = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--"]
        if user is not None:
            said = pwd.getpwnam(user)
            entering += ["setpriv", f"--reuid={said.pw_uid}", f"--regid={said.pw_gid}", "--clear-groups", "--"]
            entering += ["env", f"HOME={said.pw_dir}"]
        empty: list[Argument] = ["env", "--ignore-environment"] if bare else []
        guarded: list[Argument] = ["timeout", "--kill-after=5", str(SECONDS), *empty]
        return run([*entering, *guarded, *words], timeout=SECONDS + 20, expect=expect, stdin=stdin)

    def mounted(self, place: Path) -> str | None:
        """What lies at a place, as findmnt(8) tells it: source, type and options; None for nothing."""
        told = self.run("findmnt", "-n", "-o", "SOURCE,FSTYPE,OPTIONS", "--mountpoint", place, expect=None)
        return told.out.strip() or None


@contextmanager
def apart_in(folder: Path) -> Iterator[Apart]:
    """Have one; it ends with the context, and with the test run, and everything in it ends with it."""
    # A plain user has to reach the code under test, wherever that is.
    needed = [Path(sys.executable), Path(sys.executable).resolve(), Path(sys.base_prefix), ROOT]
    closed = sorted({place for path in needed for place in path.parents if not place.stat().st_mode & 0o001})
    over = [*_CHANGED, *(place for place in closed if not set(place.parents) & set(closed))]
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    env = {"OVER": " ".join(map(str, over)), "OPEN": " ".join(map(str, closed))}
    with Processes(folder) as processes:
        process = processes.start([*words, "bash", "-c", _SETUP], env=env)
        process.wait_for_line("^apart$")
        (first,) = psutil.Process(process.pid).children()
        try:
            yield Apart(pid=first.pid)
        finally:
            # unshare(1) heeds no signal but this of its child, and with the first process go all others.
            first.kill()
            process.wait()


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    """A machine apart on which glancefs is installed for root."""
    with apart_in(tmp_path_factory.mktemp("apart")) as made:
        made.run(sys.executable, "-m", "glancefs", "install-helpers")
        yield made
