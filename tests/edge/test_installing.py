# SPDX-License-Identifier: Apache-2.0
"""``glancefs install-helpers``: what it writes and where, what it never touches, and that systemd takes its units."""

from __future__ import annotations

import os
import re
import shlex
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from glancefs.cli.installing import MARK, _for_systemd
from tests.support.capabilities import ROOT
from tests.support.cli import Cli
from tests.support.processes import Finished, run

UNITS = ("glancefs.service", "glancefs-registry.service", "glancefs-mount@.service")
EXPOSURE = 2.0
"""What `systemd-analyze security` may find in the servers at the most, of 10."""


def files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if not path.is_dir())


@pytest.fixture
def installed(cli: Cli, tmp_path: Path) -> Path:
    """A folder in the place of /, into which all was installed."""
    prefix = tmp_path / "a prefix"
    cli.where = ()
    cli("install-helpers", "--prefix", prefix)
    return prefix


def test_it_says_what_it_writes_and_nothing_else_is_written(cli: Cli, tmp_path: Path) -> None:
    cli.where = ()
    told = cli("install-helpers", "--prefix", tmp_path / "prefix").out.splitlines()
    assert sorted(told) == sorted(f"wrote {path}" for path in files_below(tmp_path / "prefix"))
    names = {path.name for path in files_below(tmp_path / "prefix")}
    assert {"mount.glancefs", "mount.fuse.glancefs", "umount.glancefs", "umount.fuse.glancefs", *UNITS} <= names
    assert {"glancefs.1", "glancefs.toml.5", "mount.glancefs.8", "umount.glancefs.8"} <= names
    assert {"glancefs", "_glancefs", "glancefs.fish", "glancefs.conf"} <= names


def test_helpers_are_programs_that_need_no_path(installed: Path) -> None:
    helper = installed / "sbin" / "mount.glancefs"
    assert stat.S_IMODE(helper.stat().st_mode) == 0o755
    assert shlex.split(helper.read_text().splitlines()[-1])[:5] == [
        *("exec", sys.executable, "-I", "-m", "mount_helpers.mount")
    ]
    assert run(["env", "-i", helper, "-V"]).out.startswith("mount.glancefs ")


def test_everybody_may_read_what_root_installs_whatever_root_s_umask_is(cli: Cli, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        cli.where = ()
        cli("install-helpers", "--prefix", tmp_path / "prefix")
    finally:
        os.umask(before)
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "prefix").rglob("*"))


def test_a_second_time_it_only_mends(cli: Cli, installed: Path) -> None:
    helper, unit = installed / "sbin/mount.glancefs", installed / "usr/local/lib/systemd/system/glancefs.service"
    helper.chmod(0o600)
    unit.write_text(f"# {MARK}\n[Unit]\n")
    count = len(list(files_below(installed)))
    told = cli("install-helpers", "--prefix", installed).out.splitlines()
    assert told == [
        f"wrote {helper}",
        f"wrote {unit}",
        f"{count - 2} files were there already, as they should be.",
    ]
    assert stat.S_IMODE(helper.stat().st_mode) == 0o755


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
@pytest.mark.parametrize("word", [(), ("--uninstall",)], ids=["install", "uninstall"])
def test_what_somebody_else_put_there_is_not_touched_and_then_nothing_is(
    word: tuple[str, ...], kind: str, cli: Cli, installed: Path
) -> None:
    stranger = installed / "sbin/mount.fuse.glancefs"
    stranger.unlink()
    if kind == "file":
        stranger.write_text("#!/bin/sh\n")
    elif kind == "link":
        stranger.symlink_to("mount.glancefs")
    else:
        stranger.mkdir()
    (installed / "sbin/mount.glancefs").write_text(f"# {MARK}\n")
    told = cli("install-helpers", "--prefix", installed, *word, expect=2)
    assert told.err == f"glancefs: {stranger}: not written by this command, so nothing is changed.\n"
    assert (installed / "sbin/mount.glancefs").read_text() == f"# {MARK}\n"
    assert os.path.lexists(stranger)


def test_it_removes_all_that_it_wrote(cli: Cli, installed: Path) -> None:
    there = list(files_below(installed))
    told = cli("install-helpers", "--prefix", installed, "--uninstall").out.splitlines()
    assert sorted(told) == [f"removed {path}" for path in there]
    assert list(files_below(installed)) == []
    assert cli("install-helpers", "--prefix", installed, "--uninstall").out == ""


@pytest.mark.needs("root")
def test_only_root_installs_for_the_whole_machine(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    cli.where = ()
    told = cli("install-helpers", expect=2)
    assert told.err.startswith("glancefs: Only root may write to /sbin and /usr/local")


def test_completion_is_what_the_command_prints(cli: Cli, installed: Path) -> None:
    share = installed / "usr/local/share"
    for shell, path in (("bash", "bash-completion/completions/glancefs"), ("zsh", "zsh/site-functions/_glancefs")):
        assert (share / path).read_text().startswith(cli("completion", shell).out)


def test_a_path_is_written_as_one_word_for_systemd() -> None:
    assert _for_systemd("/opt/glancefs/bin/python") == "/opt/glancefs/bin/python"
    assert _for_systemd('/opt/a b/100%/"x"') == '"/opt/a b/100%%/\\"x\\""'


def analyze(installed: Path, *words: str, expect: int | None = 0) -> Finished:
    """Run systemd-analyze(1) on what was installed, as if it were the machine's."""
    units = installed / "usr/local/lib/systemd/system"
    manual = installed / "usr/local/share/man"
    # A template is looked at as one of its instances.
    (units / "glancefs-mount@mnt-images.service").write_text((units / UNITS[2]).read_text())
    said = [word.replace("UNITS/", f"{units}/") for word in words]
    return run(["systemd-analyze", *said], env={"MANPATH": str(manual), "SYSTEMD_PAGER": ""}, expect=expect)


@pytest.mark.needs("systemd-analyze", "man")
@pytest.mark.parametrize("unit", ["glancefs.service", "glancefs-registry.service", "glancefs-mount@mnt-images.service"])
def test_systemd_finds_nothing_wrong_with_the_units(unit: str, installed: Path) -> None:
    told = analyze(installed, "verify", f"UNITS/{unit}")
    assert [line for line in told.err.splitlines() if unit in line] == []


@pytest.mark.needs("systemd-analyze")
def test_the_servers_are_as_hardened_as_the_page_says(installed: Path) -> None:
    page = (ROOT / "docs/how-to/systemd.md").read_text()
    for unit in UNITS:
        name = unit.replace("@", "@mnt-images")
        said = analyze(installed, "security", "--offline=true", "--no-pager", f"UNITS/{name}").out
        found = float(re.findall(r"Overall exposure level for .*: ([\d.]+)", said)[0])
        (written,) = re.findall(rf"\| `{re.escape(unit)}` \| ([\d.]+) \|", page)
        # Each version of systemd counts a little differently.
        assert abs(found - float(written)) <= 0.5
        assert found <= EXPOSURE or unit == UNITS[2]


def test_a_wheel_has_the_manual_where_man_looks_and_all_that_is_installed(tmp_path: Path) -> None:
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [re.sub(r"^glancefs-[^/]*\.", "", name) for name in archive.namelist()]
    assert {"data/data/share/man/man8/mount.glancefs.8", "data/data/share/man/man1/glancefs.1"} <= set(names)
    assert {f"glancefs/share/systemd/{unit}" for unit in UNITS} <= set(names)
    assert "mount_helpers/mount.py" in names
