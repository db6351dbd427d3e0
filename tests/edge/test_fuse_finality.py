# SPDX-License-Identifier: Apache-2.0
"""What /proc tells of a close, with real processes on a real file: any file system shows the same."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from glancefs.fuse.finality import Closing, Opener, closing, opener_of


@contextmanager
def shell(script: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a script that says `ok` when it is where the test wants it, and goes on when it reads a line."""
    with subprocess.Popen(
        ["bash", "-c", script, "bash", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ok\n"
        try:
            yield process
        finally:
            process.kill()


def meaning(process: subprocess.Popen[bytes], path: Path) -> Closing:
    return closing(Opener(pid=process.pid), path.stat().st_ino)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ('exec 3>"$1"; echo ok; read line', Closing.NOT_LAST),
        ('exec 3>"$1"; exec 3>&-; echo ok; read line', Closing.LAST),
        ('exec 3>"$1"; exec 4>&3; exec 3>&-; echo ok; read line', Closing.NOT_LAST),
        # The shell has closed it, and a child of it goes on writing.
        ('exec 3>"$1"; sleep 60 & exec 3>&-; echo ok; read line; kill %1', Closing.NOT_LAST),
        ('exec 3>"$1"; exec 3>&-; sleep 60 & echo ok; read line; kill %1', Closing.LAST),
    ],
)
def test_a_close_is_the_last_when_opener_and_children_have_let_go(
    script: str, expected: Closing, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.touch()
    with shell(script, path) as process:
        assert meaning(process, path) is expected
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
        process.wait(20)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_opener_is_told_from_one_that_ended(number: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with shell('trap - INT TERM; exec 3>"$1"; echo ok; exec cat >&3', path) as process:
        while b"cat" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            time.sleep(0.01)
        process.send_signal(number)
        # A zombie keeps its flags until it is waited for.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert meaning(process, path) is Closing.KILLED


def test_of_a_process_that_is_gone_nothing_is_known(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with subprocess.Popen(["true"]) as process:
        process.wait(20)
    assert meaning(process, path) is Closing.UNKNOWN
    assert closing(Opener(pid=0), 1) is Closing.UNKNOWN


def test_a_thread_s_file_is_its_process_s() -> None:
    found: list[Opener] = []
    thread = threading.Thread(target=lambda: found.append(opener_of(threading.get_native_id())))
    thread.start()
    thread.join()
    assert [opener.pid for opener in found] == [os.getpid()]


def test_a_child_that_was_begun_after_the_opening_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with shell('echo ok; read line; exec 3>"$1"; sleep 60 & exec 3>&-; echo ok; read line; kill %1', path) as process:
        opener = opener_of(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ok\n"
        assert not opener.is_childless
        assert closing(opener, path.stat().st_ino) is Closing.NOT_LAST
        process.stdin.write(b"\n")
        process.stdin.close()
        process.wait(20)


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("file", "file"), Closing.NOT_LAST), (("old", "file"), Closing.NOT_LAST), (("other", "another"), Closing.LAST)],
)
@pytest.mark.parametrize("is_removed", [False, True])
def test_only_files_of_its_names_are_looked_at(
    names: tuple[str, str], expected: Closing, *, is_removed: bool, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.touch()
    ino = path.stat().st_ino
    with shell('exec 3>"$1"; echo ok; read line', path) as process:
        if is_removed:
            path.unlink()
        then, now = names
        assert closing(opener_of(process.pid, then), ino, now) is expected
        assert closing(opener_of(process.pid), ino, now) is Closing.NOT_LAST


def test_nobody_looks_for_children_where_there_can_be_none() -> None:
    here = opener_of(os.getpid())
    unknown = replace(here, latest=b"")
    late = replace(here, until=0.0)
    assert (unknown.is_childless, late.is_childless) == (False, False)
    # Other processes of the machine may begin some at this very moment.
    assert any(opener_of(os.getpid()).is_childless for _ in range(1000))
