# SPDX-License-Identifier: Apache-2.0
"""Starting, watching and stopping the real commands.

Answers for each process that a test starts: it dies with the test run, whatever ends the run; it carries the run's
mark in its environment; and what it prints is kept in a file and looked through for tracebacks when it stops.
Does not find processes that escaped: `tests.support.leaks` does.

Threading: `start` belongs to the main thread; everything else may be called from any thread, one at a time per process.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import pytest

Argument = str | os.PathLike[str]
POLL_SECONDS = 0.02
PATIENCE = 120.0
"""How many seconds anything may take before a test fails; never what a test measures."""
# setpriv sets the signal between fork and exec, in the very process; Python code between the two may deadlock.
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


def pytest_configure() -> None:
    """Let SIGINT reach what is started here: a run in the background of a script inherits that it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def product(name: str = "glancefs") -> Path:
    """Where the installed command is."""
    return Path(sys.executable).with_name(name)


def free_port() -> int:
    """A port of 127.0.0.1 where nobody listens. Prefer to let a server take port 0 and say which it got.

    Until this process ends nobody is given the port who does not ask for it by its number.
    """
    with socket.socket() as probe:
        # Two that say so may have the same port as long as none of them listens (socket(7)).
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.detach()
        return port


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a process: the run's own, unbuffered, and `extra`."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **(extra or {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a command did."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        """Standard output as text."""
        return self.stdout.decode(errors="replace")

    @property
    def err(self) -> str:
        """Standard error as text."""
        return self.stderr.decode(errors="replace")


def run(
    command: Sequence[Argument],
    *,
    timeout: float = PATIENCE,
    expect: int | None = 0,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Finished:
    """Run a command to its end.

    Fails the test when the exit code is not `expect` (None: any), after `timeout` seconds, or at a traceback.
    """
    words = [os.fspath(word) for word in command]
    try:
        ended = subprocess.run(
            [*DIE_WITH_PARENT, *words],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            env=environment(env),
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace")
        pytest.fail(f"not done after {timeout} s: {' '.join(words)}\n{said}", pytrace=False)
    finished = Finished(returncode=ended.returncode, stdout=ended.stdout, stderr=ended.stderr)
    if expect is not None and finished.returncode != expect:
        pytest.fail(
            f"exit code {finished.returncode}, not {expect}: {' '.join(words)}\n{finished.out[-2000:]}{finished.err}",
            pytrace=False,
        )
    check_for_traceback(finished.err, words)
    return finished


def check_for_traceback(text: str, command: Sequence[str]) -> None:
    """Fail the test if a process printed a traceback."""
    if "Traceback (most recent call last)" in text:
        pytest.fail(f"a traceback from {' '.join(command)}:\n{text[-5000:]}", pytrace=False)


@dataclass(slots=True, kw_only=True)
class Process:
    """A command that runs beside the test. What it prints, on either stream, is in `log_path`."""

    command: Sequence[str]
    log_path: Path
    popen: subprocess.Popen[bytes]
    traceback_permitted: bool = False

    @property
    def pid(self) -> int:
        """The process's id; it leads a process group of its own."""
        return self.popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    def log(self) -> str:
        """Everything it has printed."""
        return self.log_path.read_text(errors="replace")

    def wait_for_line(self, pattern: str, *, timeout: float = PATIENCE) -> re.Match[str]:
        """Wait until a line of the log matches. Fails the test if the process ends first, or after `timeout`."""
        deadline = time.monotonic() + timeout
        while True:
            ended = not self.running
            if found := re.search(pattern, self.log(), re.MULTILINE):
                return found
            if ended or time.monotonic() > deadline:
                how = f"ended with {self.popen.returncode}" if ended else f"{timeout} s passed"
                self._fail(f"{how} without {pattern!r}")
            time.sleep(POLL_SECONDS)

    def wait_for_port(self, port: int, *, host: str = "127.0.0.1", timeout: float = PATIENCE) -> None:
        """Wait until somebody listens. Fails the test when the process ends first, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                socket.create_connection((host, port), timeout=1).close()
            except OSError:
                if not self.running or time.monotonic() > deadline:
                    pytest.fail(
                        f"nobody listens on {port}: {' '.join(self.command)}\n{self.log()[-5000:]}", pytrace=False
                    )
                time.sleep(POLL_SECONDS)
            else:
                return

    def wait(self, *, timeout: float = PATIENCE) -> int:
        """Wait for its end and return the exit code. Fails the test after `timeout` seconds."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(
                f"still running after {timeout} s: {' '.join(self.command)}\n{self.log()[-5000:]}", pytrace=False
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process alone; it may have ended."""
        self.popen.send_signal(number)

    def freeze(self) -> None:
        """Stop it where it is, and return when all of its threads stand still.

        kill(2) returns before that: until one thread has taken the signal, which a busy machine may put off, the others
        go on and may answer another request.
        """
        self.send(signal.SIGSTOP)
        wait_until_stopped(self.pid)

    def thaw(self) -> None:
        """Let it go on."""
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """End it and its whole group at once, as a power cut would; what it was doing is not finished."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(PATIENCE)

    def stop(self, *, timeout: float = PATIENCE) -> int:
        """Ask it to end (SIGTERM) and return the exit code. If it does not in time, it is killed and the test fails."""
        self.popen.terminate()
        try:
            return self.wait(timeout=timeout)
        finally:
            self.kill()
            if not self.traceback_permitted:
                check_for_traceback(self.log(), self.command)

    def _fail(self, what: str) -> NoReturn:
        pytest.fail(f"{what}: {' '.join(self.command)}\n{self.log()[-5000:]}", pytrace=False)


def wait_until_stopped(pid: int) -> None:
    """Wait until all threads of a process to which SIGSTOP was sent stand still, or it is gone."""
    deadline = time.monotonic() + PATIENCE
    while any(not _stands(thread) for thread in _threads(pid)):
        if time.monotonic() > deadline:
            pytest.fail(f"process {pid} goes on after SIGSTOP", pytrace=False)
        time.sleep(POLL_SECONDS)


def _threads(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return []


def _stands(thread: Path) -> bool:
    """Say whether a thread, by its folder in /proc, is stopped or gone; see proc_pid_stat(5)."""
    try:
        return (thread / "stat").read_bytes().rpartition(b") ")[2][:1] in {b"T", b"Z", b"X"}
    except (FileNotFoundError, ProcessLookupError):
        return True


@dataclass(slots=True)
class Processes:
    """The processes of one test or fixture; leaving the context stops them, the youngest first."""

    folder: Path
    started: list[Process] = field(default_factory=list)

    def start(
        self,
        command: Sequence[Argument],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        traceback_permitted: bool = False,
    ) -> Process:
        """Start a command. Main thread only: the kernel ends the child with the thread that started it."""
        if threading.current_thread() is not threading.main_thread():
            message = "a process started from this thread would die with the thread"
            raise RuntimeError(message)
        words = [os.fspath(word) for word in command]
        log_path = self.folder / f"{len(self.started)}-{Path(words[0]).name}.log"
        with log_path.open("wb") as log:
            popen = subprocess.Popen(
                [*DIE_WITH_PARENT, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(env),
                cwd=cwd,
                start_new_session=True,
            )
        process = Process(command=words, log_path=log_path, popen=popen, traceback_permitted=traceback_permitted)
        self.started.append(process)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failures: list[BaseException] = []
        for process in reversed(self.started):
            try:
                if process.running:
                    process.stop()
                elif not process.traceback_permitted:
                    check_for_traceback(process.log(), process.command)
            except pytest.fail.Exception as failure:
                failures.append(failure)
        if failures and error is None:
            raise failures[0]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Start processes for one test; they are stopped after it, and their logs may hold no traceback."""
    folder = tmp_path / "processes"
    folder.mkdir()
    with Processes(folder) as started:
        yield started
