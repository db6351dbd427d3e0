# SPDX-License-Identifier: Apache-2.0
"""A test run leaves nothing behind, and clears away what a run that was killed left.

Answers for the end of a run: no process, no listening port, no thread, no mount, no temporary file. Every process that
a run starts inherits its mark in the environment; a mark whose run is dead is what the next run clears away.
Does not stop processes of runs that are alive, nor anything without a mark.

Threading: called by pytest from its main thread.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

# Not GLANCEFS_...: those are options, and unknown options are refused.
MARK = "PYTEST_RUN_OF_GLANCEFS"
NAMESPACES = "glancefs-test-"
"""What the names of network namespaces begin with; the mark of their run follows."""
MARK_FILE = ".glancefs-test-run"
WORKERS = "pytest-of-*/pytest-*/popen-*"
"""Where the processes work among which a run is divided (pytest-xdist); each of them is a run of its own."""
GRACE_SECONDS = 60.0
"""How long what ends at the end of a run may take for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A test run: its process and when that started, so that a process id used again is not mistaken for it."""

    pid: int
    started: str

    def __str__(self) -> str:
        return f"{self.pid}-{self.started}"

    @property
    def alive(self) -> bool:
        """Whether the run goes on."""
        return self.of_process(self.pid) == self

    @classmethod
    def of_process(cls, pid: int) -> "Run | None":
        """The run that a process would be; None if there is no such process."""
        try:
            # proc(5): the command's name may hold blanks and parentheses; the start time is the 20th field after it.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return cls(pid=pid, started=fields[19])

    @classmethod
    def parse(cls, text: str) -> "Run | None":
        """Read a mark; None if it is none."""
        pid, _, started = text.partition("-")
        return cls(pid=int(pid), started=started) if pid.isdecimal() and started.isdecimal() else None


def marked_processes() -> Iterator[tuple[int, Run]]:
    """Every process that carries a mark, with the run it belongs to; the asking process is left out."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            # It ended meanwhile, or belongs to another user.
            continue
        for variable in variables:
            name, _, value = variable.partition(b"=")
            if name == MARK.encode() and (run := Run.parse(value.decode(errors="replace"))):
                yield int(entry.name), run


def mounts_below(folder: Path) -> list[Path]:
    """Mount points in a folder, the innermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    # fstab(5): blanks in a mount point are written as \040.
    points = [Path(line.split()[1].encode().decode("unicode_escape")) for line in lines]
    return sorted((point for point in points if folder in [point, *point.parents]), reverse=True)


def unmount(point: Path) -> None:
    """Take a mount away even when its daemon is dead or files on it are open; whoever waits for it is freed."""
    for command in (["umount", "-f", "-l", str(point)], ["fusermount3", "-uz", str(point)]):
        try:
            if subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0:
                return
        except FileNotFoundError:
            continue


def marked_namespaces() -> Iterator[tuple[str, Run]]:
    """Every network namespace that carries a mark, with the run it belongs to (ip-netns(8))."""
    for entry in Path("/run/netns").glob(f"{NAMESPACES}*"):
        run = Run.parse(entry.name.removeprefix(NAMESPACES).rpartition("-")[0])
        if run is not None:
            yield entry.name, run


def remove_namespace(name: str) -> None:
    """Take a network namespace away, and the cables that end in it."""
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False, timeout=60)


def clear_away_dead_runs(temporary: Path) -> list[str]:
    """End the processes, mounts and files of runs that were killed. Returns what was found, in words."""
    found = []
    for pid, run in marked_processes():
        if not run.alive:
            found.append(f"process {pid}")
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    found += _clear_away_networks()
    for mark in [*temporary.glob(f"pytest-of-*/pytest-*/{MARK_FILE}"), *temporary.glob(f"{WORKERS}/{MARK_FILE}")]:
        try:
            found += clear_away_folder(mark.parent, of=Run.parse(mark.read_text()))
        except OSError:
            continue
    for folder in temporary.glob("glancefs-database-*"):
        name = folder.name.removeprefix("glancefs-database-").rpartition("-")[0]
        found += clear_away_folder(folder, of=Run.parse(name))
    return found


def clear_away_folder(folder: Path, *, of: Run | None) -> Iterator[str]:
    """Remove a folder of a run that was killed, with the mounts in it. Gives what was found, in words."""
    if of is None or of.alive:
        return
    for point in mounts_below(folder):
        yield f"mount {point}"
        unmount(point)
    yield f"folder {folder}"
    shutil.rmtree(folder, ignore_errors=True)


def _clear_away_networks() -> Iterator[str]:
    for name, run in marked_namespaces():
        if not run.alive:
            yield f"network {name}"
            remove_namespace(name)


def leaks_of(run: Run, *, base: Path, scratch: Path) -> list[str]:
    """What a run has left at this moment, in words."""
    me = psutil.Process()
    found = [f"process {pid}: {_command_of(pid)}" for pid, owner in marked_processes() if owner == run]
    found += [f"zombie {child.pid}" for child in me.children() if child.status() == psutil.STATUS_ZOMBIE]
    found += [
        f"port {socket.laddr.port}" for socket in me.net_connections(kind="tcp") if socket.status == psutil.CONN_LISTEN
    ]
    found += [
        f"thread {thread.name}"
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread()
    ]
    found += [f"mount {point}" for point in mounts_below(base)]
    found += [f"network {name}" for name, owner in marked_namespaces() if owner == run]
    found += [f"temporary file {path}" for path in sorted(scratch.iterdir())]
    return found


def end_processes_of(run: Run) -> None:
    """Kill what a run has left running."""
    for pid, owner in marked_processes():
        if owner == run:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _command_of(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return "has ended"


def pytest_configure(config: pytest.Config) -> None:
    """Mark this run before it starts anything, and clear away the dead ones."""
    run = Run.of_process(os.getpid())
    os.environ[MARK] = str(run)
    if found := clear_away_dead_runs(Path(tempfile.gettempdir())):
        config.stash[CLEARED] = found


CLEARED = pytest.StashKey[list[str]]()


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what a killed run had left."""
    found = config.stash.get(CLEARED, None)
    return [f"cleared away after a killed run: {', '.join(found)}"] if found else []


@pytest.fixture(autouse=True)
def the_runner_stays_where_it_was() -> Iterator[None]:
    """Hold each test to leaving this thread its cores: whatever is started from here on would inherit fewer."""
    before = os.sched_getaffinity(0)
    yield
    after = os.sched_getaffinity(0)
    if after != before:
        os.sched_setaffinity(0, before)
        pytest.fail(f"left on cores {sorted(after)} of {sorted(before)}")


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hold the whole run to leaving nothing; it also runs apart from the user's home and settings."""
    run = Run.of_process(os.getpid())
    assert run is not None
    base = tmp_path_factory.getbasetemp()
    (base / MARK_FILE).write_text(str(run))
    scratch, home = base / "scratch", base / "home"
    scratch.mkdir()
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GLANCEFS_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.delenv("XDG_CONFIG_HOME", raising=False)
        patch.setenv("TMPDIR", str(scratch))
        # tempfile remembers the folder it found first.
        patch.setattr(tempfile, "tempdir", str(scratch))
        yield
    deadline = time.monotonic() + GRACE_SECONDS
    while (found := leaks_of(run, base=base, scratch=scratch)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if found:
        end_processes_of(run)
        for point in mounts_below(base):
            unmount(point)
        for name, owner in marked_namespaces():
            if owner == run:
                remove_namespace(name)
    shutil.rmtree(scratch)
    shutil.rmtree(home)
    (base / MARK_FILE).unlink()
    if found:
        pytest.fail("left behind by this run: " + "; ".join(found), pytrace=False)
