# SPDX-License-Identifier: Apache-2.0
"""What the machine offers to the tests, and what becomes of a test that needs more.

Answers for the `needs` marker and the lines at the head of a run that name each capability.
A test that needs what is absent is skipped on a user's machine and fails under CI (`CI=true`), where all must be there.
Does not install anything: `make setup-test` does.

Threading: called by pytest from its main thread.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GRUB = Path("/usr/lib/grub-rescue/grub-rescue-cdrom.iso")
POSTGRESQL = next(
    (
        folder
        for folder in (ROOT / ".cache/postgresql/usr/lib/postgresql/15/bin", Path("/usr/lib/postgresql/15/bin"))
        if (folder / "postgres").is_file()
    ),
    None,
)
"""Where the server's programs are: unpacked by the Makefile, so that no server starts on this machine, or installed."""
KEYSTONE = ROOT / ".cache/keystone/bin/python"
"""The interpreter of an environment that holds a whole Keystone."""
SWIFT = ROOT / ".cache" / "swift"
NETBOOT = Path("/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One thing that a machine may lack; `source` says where it comes from."""

    name: str
    present: Callable[[], bool]
    source: str


def tool(name: str) -> Path | None:
    """Where a command is: in PATH, among the system's daemons, or unpacked by the Makefile for the benchmarks."""
    unpacked = [folder / "usr" / "sbin" for folder in (ROOT / ".cache").glob("*")]
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", *map(str, unpacked)])
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def _command(name: str, package: str, *, command: str = "") -> Capability:
    return Capability(name=name, present=lambda: tool(command or name) is not None, source=f"Debian package {package}")


def git(*words: str) -> str | None:
    """What git says of this tree, whoever owns it; None where there is no git or no work tree."""
    if tool("git") is None:
        return None
    command = ["git", "-C", str(ROOT), "-c", "safe.directory=*", *words]
    said = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return said.stdout.decode(errors="surrogateescape") if said.returncode == 0 else None


def _gvfs_works() -> bool:
    backends = [Path(folder, "gvfsd-dav") for folder in ("/usr/libexec", "/usr/lib/gvfs")]
    return any(map(Path.is_file, backends)) and tool("gio") is not None and tool("dbus-run-session") is not None


def _fuse_works() -> bool:
    return tool("fusermount3") is not None and os.access("/dev/fuse", os.R_OK | os.W_OK)


def _passthrough_works() -> bool:
    version = re.match(r"(\d+)\.(\d+)", platform.release())
    return version is not None and (int(version[1]), int(version[2])) >= (6, 9) and os.geteuid() == 0


def _namespaces_work() -> bool:
    if tool("ip") is None or tool("nsenter") is None or os.geteuid() != 0:
        return False
    # Not in every container, even as root.
    return subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False, timeout=60).returncode == 0


def _machine_apart_works() -> bool:
    if os.geteuid() != 0 or any(tool(name) is None for name in ("unshare", "nsenter", "setpriv", "findmnt")):
        return False
    # Not in every container, even as root, and not with every kernel.
    script = (
        "mount -t tmpfs t /mnt && cd /mnt && mkdir a b && mount -t overlay -o lowerdir=/etc,upperdir=a,workdir=b o /etc"
    )
    command = ["unshare", "--mount", "--pid", "--fork", "--propagation", "private", "sh", "-c", script]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def registered(capabilities: Iterable[Capability]) -> Mapping[str, Capability]:
    """Capabilities by name; a name given twice is an error."""
    table: dict[str, Capability] = {}
    for capability in capabilities:
        if capability.name in table:
            message = f"capability {capability.name} is given twice"
            raise ValueError(message)
        table[capability.name] = capability
    return table


# A new capability is one entry here; tests name it in @pytest.mark.needs(...).
CAPABILITIES = registered(
    [
        Capability(
            name="apache", present=lambda: tool("apache2") is not None, source="apache2, which `make bench` unpacks"
        ),
        Capability(name="apart", present=_machine_apart_works, source="a run as root, with namespaces and overlayfs"),
        Capability(
            name="autofs",
            present=lambda: "\tautofs\n" in Path("/proc/filesystems").read_text(),
            source="a kernel with autofs",
        ),
        _command("bindfs", "bindfs, which `make bench` installs"),
        _command("cadaver", "cadaver"),
        _command("curl", "curl"),
        Capability(name="davfs2", present=lambda: tool("mount.davfs") is not None, source="Debian package davfs2"),
        _command("fio", "fio"),
        Capability(name="fuse", present=_fuse_works, source="/dev/fuse and the Debian package fuse3"),
        _command("getfattr", "attr"),
        Capability(name="grub", present=GRUB.is_file, source="Debian package grub-rescue-pc"),
        Capability(name="git", present=lambda: git("rev-parse") is not None, source="a git work tree"),
        Capability(name="gvfs", present=_gvfs_works, source="Debian packages gvfs-backends, libglib2.0-bin and dbus"),
        _command("haproxy", "haproxy, which `make setup-test` unpacks"),
        _command("litmus", "litmus"),
        Capability(
            name="keystone", present=KEYSTONE.is_file, source="requirements-keystone.lock, by `make setup-test`"
        ),
        _command("man", "man-db"),
        _command("mandoc", "mandoc"),
        _command("mariadb", "mariadb-server-core", command="mariadbd"),
        _command("mariadb-dump", "mariadb-client"),
        Capability(name="netns", present=_namespaces_work, source="a run as root, and the Debian package iproute2"),
        Capability(
            name="netboot",
            present=lambda: (NETBOOT / "linux").is_file() and (NETBOOT / "initrd.gz").is_file(),
            source="Debian package debian-installer-12-netboot-amd64",
        ),
        _command("nginx", "nginx, which `make bench` unpacks"),
        _command("openssl", "openssl"),
        Capability(
            name="postgresql",
            present=lambda: POSTGRESQL is not None,
            source="Debian package postgresql-15, which `make setup-test` unpacks",
        ),
        Capability(name="passthrough", present=_passthrough_works, source="a run as root on Linux 6.9 or later"),
        Capability(
            name="pg_dump",
            present=lambda: POSTGRESQL is not None and (POSTGRESQL / "pg_dump").is_file(),
            source="Debian package postgresql-client-15, which `make setup-test` unpacks",
        ),
        _command("qemu-img", "qemu-utils"),
        _command("qemu-system-x86_64", "qemu-system-x86"),
        _command("rclone", "rclone"),
        Capability(name="root", present=lambda: os.geteuid() == 0, source="a run as root"),
        Capability(name="two cores", present=lambda: len(os.sched_getaffinity(0)) > 1, source="another machine"),
        _command("mkfs.btrfs", "btrfs-progs"),
        _command("mkfs.xfs", "xfsprogs"),
        _command("rsync", "rsync"),
        _command("stress-ng", "stress-ng"),
        _command("systemd-analyze", "systemd"),
        Capability(
            name="swift",
            present=(SWIFT / "bin" / "swift-proxy-server").is_file,
            source="requirements-swift.lock, which `make setup-test` installs",
        ),
        Capability(name="vim", present=lambda: tool("vim.tiny") is not None, source="Debian package vim-tiny"),
        _command("xorriso", "xorriso"),
    ]
)


def refuse_or_skip(missing: Iterable[Capability], *, in_ci: bool) -> None:
    """End the test if anything is missing: as a failure under CI, else as a skip. Names what, and where to get it."""
    reasons = [f"{capability.name} ({capability.source})" for capability in missing]
    if not reasons:
        return
    sentence = "this machine lacks " + ", ".join(reasons)
    if in_ci:
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


def in_ci() -> bool:
    """Whether this is a run where nothing may be missing."""
    return os.environ.get("CI") == "true"


def needed(item: pytest.Item) -> list[Capability]:
    """The capabilities that a test's markers name. Raises UsageError for a name that nobody registered."""
    names = [str(name) for marker in item.iter_markers("needs") for name in marker.args]
    if unknown := [name for name in names if name not in CAPABILITIES]:
        message = f"{item.nodeid} needs unknown capabilities: {', '.join(unknown)}; known are {', '.join(CAPABILITIES)}"
        raise pytest.UsageError(message)
    return [CAPABILITIES[name] for name in names]


def pytest_report_header() -> list[str]:
    """Say at the head of the run what will be tested and what not."""
    on = [name for name, capability in CAPABILITIES.items() if capability.present()]
    off = [f"{name} ({capability.source})" for name, capability in CAPABILITIES.items() if name not in on]
    return [f"capabilities on: {', '.join(on) or 'none'}", f"capabilities off: {', '.join(off) or 'none'}"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stop at a misspelt capability before any test has run."""
    for item in items:
        needed(item)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test whose capabilities are absent."""
    refuse_or_skip([capability for capability in needed(item) if not capability.present()], in_ci=in_ci())
