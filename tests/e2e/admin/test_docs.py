# SPDX-License-Identifier: Apache-2.0
"""The pages for administrators do what they say: each command, as it is printed, by root on a machine apart."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.e2e.test_tour import matches, steps
from tests.support.apart import Apart, apart_in
from tests.support.capabilities import ROOT

pytestmark = pytest.mark.needs("apart", "fuse", "man", "systemd-analyze")

PAGES = ROOT / "docs" / "how-to"
_MARK = "--- the next command ---"
# No service is started here, where no systemd runs.
_PREAMBLE = """exec 2>&1
systemctl() { :; }
mkdir -p /srv
mount -t tmpfs none /srv
"""


@pytest.mark.parametrize("page", ["fstab.md", "systemd.md"])
def test_a_page_does_what_it_says(page: str, tmp_path: Path) -> None:
    told = steps(f"<!-- tour -->{(PAGES / page).read_text()}<!-- /tour -->")
    assert told
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
    script = f"export PATH={path}\n{_PREAMBLE}" + "".join(f"{step.command}\necho '{_MARK}'\n" for step in told)
    with apart_in(tmp_path) as machine:
        printed = machine.run("bash", "-c", script).out
        for step, lines in zip(told, printed.split(f"{_MARK}\n"), strict=False):
            assert matches(step.output, lines.splitlines()), f"$ {step.command}\n{lines}"
        assert printed.count(_MARK) == len(told), printed
        # What the page has put into fstab reads well to others, too.
        assert "[E]" not in machine.run("findmnt", "--verify", expect=None).out


def test_the_readme_tells_administrators_what_works(tmp_path: Path) -> None:
    _, _, section = (ROOT / "README.md").read_text().partition("\n## For administrators\n")
    [block] = re.findall(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
    # Its own folder the server would have made when it was started.
    before = 'set -e\nsudo() { "$@"; }\nmount -t tmpfs none /var/lib\nsystemctl() { mkdir -p /var/lib/glancefs; }\n'
    with apart_in(tmp_path) as machine:
        told = machine.run("bash", "-c", f"export PATH={path}\n{before}{block}")
        assert "mount virtual-machine images as files" in told.out
        assert (machine.mounted(Path("/mnt/images")) or "").split()[:2] == ["/var/lib/glancefs", "fuse.glancefs"]
        machine.run("umount", "/mnt/images")


@pytest.mark.parametrize("page", ["fstab.md", "systemd.md", "several-hosts.md"])
def test_every_option_that_a_line_of_fstab_has_is_one(page: str, tmp_path: Path, apart: Apart) -> None:
    lines = re.findall(r"^(?:\$ echo ')?(\S*/\S+ +/\S+ +glancefs +\S+)", (PAGES / page).read_text(), re.MULTILINE)
    assert lines or page == "systemd.md"
    data, point = apart.folder("lines/data"), apart.folder("lines/point")
    apart.run("install", "-D", "-m", "600", "/dev/null", "/etc/glancefs/credentials")
    apart.write(Path("/etc/glancefs/credentials"), "user=ann\npassword=a password\n")
    for line in lines:
        source, _, _, options, *_ = line.split()
        apart.run("/sbin/mount.glancefs", "-f", source if "://" in source else data, point, "-o", options)
