# SPDX-License-Identifier: Apache-2.0
"""The how-to pages of clients that run here do what they say: each command, as it is printed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.test_tour import matches, steps
from tests.support.capabilities import ROOT
from tests.support.processes import Argument, run

PAGES = ROOT / "docs" / "how-to"
SERVER = "127.0.0.1:9292"
_MARK = "--- the next command ---"
# What GNOME's libraries say of a machine without a desktop.
_NOISE = re.compile(r"^\n\(gio .*WARNING \*\*.*\n", re.MULTILINE)
# What the pages say to root is said by root here, and packages are there.
_PREAMBLE = 'exec 2>&1\nsudo() { "$@"; }\napt-get() { :; }\n'
# A machine of its own as far as these pages touch it: nothing is left in /etc, /mnt or the cache.
_APART = (
    "mount -t tmpfs none /mnt && cp -a /etc/davfs2 /etc/fstab /mnt/ && mkdir /mnt/cache"
    " && mount --bind /mnt/davfs2 /etc/davfs2 && mount --bind /mnt/fstab /etc/fstab"
    " && chown davfs2:davfs2 /mnt/cache && mount --bind /mnt/cache /var/cache/davfs2\n"
)


def check(page: str, server: str, place: Path, *, around: Sequence[Argument] = (), before: str = "") -> None:
    """Run a page's commands in one shell in a folder, and compare what each prints."""
    told = steps(f"<!-- tour -->{(PAGES / page).read_text()}<!-- /tour -->")
    assert told
    commands = [step.command.replace(SERVER, server) for step in told]
    script = before + _PREAMBLE + "".join(f"{command}\necho '{_MARK}'\n" for command in commands)
    words: list[Argument] = ["timeout", "--kill-after=5", "100", *around, "bash", "-c", script]
    printed = run(words, env={"HOME": str(place)}, cwd=place, timeout=120).out.replace(server, SERVER)
    for step, lines in zip(told, printed.split(f"{_MARK}\n"), strict=False):
        shown = _NOISE.sub("", lines).splitlines()
        assert matches(step.output, shown), f"$ {step.command}\n{lines}"
    assert printed.count(_MARK) == len(told), printed


@pytest.fixture
def where(serve: Serve, tmp_path: Path) -> str:
    """A server with an empty store, and beside it the files that the pages speak of."""
    for name, size in (("disk.img", 4096), ("images/debian/12.img", 4096), ("images/kernel.img", 2048)):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(range(256)) * (size // 256))
    return serve().url.removeprefix("http://")


@pytest.mark.needs("rclone", "fuse")
def test_the_page_on_rclone(where: str, tmp_path: Path) -> None:
    check("rclone.md", where, tmp_path)


@pytest.mark.needs("davfs2", "fuse", "root")
def test_the_page_on_davfs2(where: str, tmp_path: Path) -> None:
    check("davfs2.md", where, tmp_path, around=["unshare", "--mount", "--propagation", "private"], before=_APART)


@pytest.mark.needs("gvfs")
def test_the_page_on_gnome(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    for name, value in (("XDG_RUNTIME_DIR", str(runtime)), ("GVFS_DISABLE_FUSE", "1")):
        monkeypatch.setenv(name, value)
    check("gnome.md", where, tmp_path, around=["dbus-run-session", "--"])


@pytest.mark.parametrize("page", ["rclone.md", "davfs2.md", "windows.md", "macos.md", "gnome.md"])
def test_a_page_speaks_of_one_door(page: str) -> None:
    addresses = re.findall(
        r"\b(?:https?|davs?)://(?:127\.0\.0\.1:9292|images\.example)(/[^\s`;]*)", (PAGES / page).read_text()
    )
    assert addresses
    assert all(path.startswith("/dav") for path in addresses)
