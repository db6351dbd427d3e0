# SPDX-License-Identifier: Apache-2.0
"""A test run notices what is left behind and what is logged, and clears away what a killed run left.

Each test runs pytest over a small file with the project's own plugins.

Threading: none.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.capabilities import ROOT
from tests.support.leaks import MARK, Run
from tests.support.processes import PATIENCE, Finished, Process, Processes, run

PLUGINS = ("capabilities", "leaks", "logs", "processes")
PASSED, FAILED = 0, 1


@pytest.fixture
def inner(tmp_path: Path) -> Callable[[str], list[str | Path]]:
    """The command that runs a file of tests apart from this run."""

    def command(body: str) -> list[str | Path]:
        test = tmp_path / "test_inner.py"
        test.write_text(body)
        plugins = [word for name in PLUGINS for word in ("-p", f"tests.support.{name}")]
        config: list[str | Path] = ["-c", os.devnull, "--rootdir", tmp_path, "-p", "no:cacheprovider"]
        return [sys.executable, "-m", "pytest", *config, *plugins, "-rA", test]

    return command


@pytest.fixture
def outcome(inner: Callable[[str], list[str | Path]], tmp_path: Path) -> Callable[..., Finished]:
    """Run a file of tests to its end, with a temporary folder of its own."""

    def of(body: str, *, expect: int, **env: str) -> Finished:
        return run(inner(body), expect=expect, cwd=ROOT, env={"CI": "", "TMPDIR": str(tmp_path), **env})

    return of


def test_a_clean_run_passes(outcome: Callable[..., Finished]) -> None:
    said = outcome("def test_it(tmp_path): (tmp_path / 'x').touch()", expect=PASSED).out
    assert re.search(r"^capabilities on: .*git", said, re.MULTILINE)


LEAVES_EVERYTHING = """
import os, socket, subprocess, tempfile, threading, time
from tests.support import leaks
leaks.GRACE_SECONDS = 2.0
left = [socket.socket()]

def wait_until_it_is_found(folder):
    while os.path.exists(folder):
        time.sleep(0.02)

def test_it():
    left.append(subprocess.Popen(["sleep", "60"]))
    subprocess.run("setsid sleep 61 & exit", shell=True)
    left[0].bind(("127.0.0.1", 0))
    left[0].listen()
    threading.Thread(target=wait_until_it_is_found, args=[tempfile.mkdtemp(prefix="forgotten-")], name="t9").start()
"""


def test_a_run_that_leaves_something_fails_names_it_and_ends_it(outcome: Callable[..., Finished]) -> None:
    said = outcome(LEAVES_EVERYTHING, expect=FAILED).out
    found = re.search("left behind by this run: .*", said)
    assert found
    for thing in ("sleep 60", "sleep 61", r"port \d+", "thread t9", "temporary file .*forgotten-"):
        assert re.search(thing, found[0])
    assert not any(_runs(int(pid)) for pid in re.findall(r"process (\d+)", found[0]))


def test_a_killed_run_takes_its_processes_with_it(
    inner: Callable[[str], list[str | Path]], processes: Processes, tmp_path: Path
) -> None:
    body = f"import time\ndef test_it(processes): processes.start(['sleep', '63']); {_SAY_READY}; time.sleep(60)"
    outer = _start_and_wait(processes, inner(body), tmp_path)
    child = _only_child(outer, "sleep")
    outer.kill()
    _must_become_true(lambda: not _runs(child))


def test_the_next_run_clears_away_what_a_killed_run_left(
    inner: Callable[[str], list[str | Path]],
    outcome: Callable[..., Finished],
    processes: Processes,
    tmp_path: Path,
) -> None:
    body = (
        "import subprocess, time\ndef test_it(tmp_path):\n    (tmp_path / 'big').touch()\n"
        f"    subprocess.Popen(['setsid', 'sleep', '64']); {_SAY_READY}; time.sleep(60)"
    )
    outer = _start_and_wait(processes, inner(body), tmp_path)
    child = _only_child(outer, "sleep")
    outer.send(signal.SIGKILL)
    outer.wait()
    assert _runs(child)
    assert list(tmp_path.glob("pytest-of-*/pytest-0/test_it0/big"))

    said = outcome("def test_it(): pass", expect=PASSED).out

    assert re.search(rf"cleared away after a killed run: .*process {child}\b.*folder .*pytest-0", said)
    _must_become_true(lambda: not _runs(child))
    assert not list(tmp_path.glob("pytest-of-*/pytest-0/test_it0"))


def test_a_run_that_is_alive_is_left_alone(outcome: Callable[..., Finished], processes: Processes) -> None:
    # This very run is the one that is alive; the process carries its mark.
    mine = processes.start(["sleep", "65"])
    said = outcome("def test_it(): pass", expect=PASSED).out
    assert "cleared away" not in said
    assert mine.running


UNEXPECTED = """
import logging, pytest
log = logging.getLogger("a.b")

@pytest.fixture
def early(): log.warning("odd")

@pytest.fixture
def late():
    yield
    log.error("odd")

def test_says_it(): log.warning("odd")
def test_fixture_says_it(early): pass
def test_fixture_says_it_at_last(late): pass
def test_expects_something_else(expect_log):
    expect_log("even", optional=True)
    log.warning("odd")
"""
EXPECTED = """
import logging, pytest
def test_fixture(expect_log):
    expect_log("WARNING root: od+")
    logging.warning("odd")

@pytest.mark.expect_log("odd")
def test_marker(): logging.error("odd")
def test_optional(expect_log): expect_log("odd", optional=True)
def test_information(): logging.info("odd")
"""


def test_an_unexpected_warning_fails_the_test(outcome: Callable[..., Finished]) -> None:
    said = outcome(UNEXPECTED, expect=FAILED).out
    assert "3 failed, 1 passed, 1 error" in said
    assert len(re.findall(r"not expected:\n(?:E +)?(?:WARNING|ERROR) a.b: odd", said)) == 4


def test_an_expected_warning_does_not(outcome: Callable[..., Finished]) -> None:
    assert "4 passed" in outcome(EXPECTED, expect=PASSED).out


def test_an_expected_warning_must_come(outcome: Callable[..., Finished]) -> None:
    said = outcome("def test_it(expect_log): expect_log('odd')", expect=FAILED).out
    assert "expected in the log, and never logged: odd" in said


NEEDS_NGINX = "import pytest\n@pytest.mark.needs('nginx')\ndef test_it(): pass"
ABSENT = "from tests.support import capabilities\ncapabilities.tool = lambda name: None\n"


def test_what_the_machine_lacks_is_skipped_by_name_and_fails_under_ci(outcome: Callable[..., Finished]) -> None:
    skipped = outcome(ABSENT + NEEDS_NGINX, expect=PASSED).out
    assert re.search(r"SKIPPED .*this machine lacks nginx", skipped)
    failed = outcome(ABSENT + NEEDS_NGINX, expect=FAILED, CI="true").out
    assert "this machine lacks nginx" in failed


def test_a_misspelt_capability_stops_the_run(outcome: Callable[..., Finished]) -> None:
    usage_error = 4
    said = outcome(NEEDS_NGINX.replace("nginx", "ngimx"), expect=usage_error)
    assert "unknown capabilities: ngimx" in said.out + said.err


def test_a_process_that_prints_a_traceback_fails_its_test(processes: Processes, tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="a traceback from"):
        run([sys.executable, "-c", "raise SystemError"], expect=1)
    process = processes.start([sys.executable, "-c", "raise SystemError"], traceback_permitted=True)
    process.wait()
    assert "SystemError" in process.log()
    with pytest.raises(pytest.fail.Exception, match="a traceback from"), Processes(tmp_path) as inner_processes:
        inner_processes.start([sys.executable, "-c", "raise SystemError"]).wait()


def test_a_process_that_ends_early_is_not_waited_for(processes: Processes) -> None:
    process = processes.start(["sh", "-c", "echo no luck; exit 3"])
    with pytest.raises(pytest.fail.Exception, match=r"(?s)ended with 3 without 'ready'.*no luck"):
        process.wait_for_line("ready")


def test_a_process_that_ignores_sigterm_is_killed_and_fails_its_test(processes: Processes) -> None:
    process = processes.start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"])
    process.wait_for_line("ready")
    with pytest.raises(pytest.fail.Exception, match="still running after"):
        process.stop(timeout=0.5)
    assert not process.running


def test_a_process_id_used_again_is_not_mistaken_for_its_run() -> None:
    me = Run.of_process(os.getpid())
    assert me is not None
    assert me.alive
    assert Run.parse(str(me)) == me
    assert not Run(pid=me.pid, started="1").alive


_SAY_READY = "print('READY', flush=True)"


def _start_and_wait(processes: Processes, command: list[str | Path], folder: Path) -> Process:
    outer = processes.start([*command, "-s"], cwd=ROOT, env={"TMPDIR": str(folder)})
    outer.wait_for_line("READY")
    return outer


def _only_child(process: Process, name: str) -> int:
    """The child's id, once it is the command and no longer the wrapper that starts it."""
    found: list[int] = []

    def there() -> bool:
        found[:] = [child.pid for child in psutil.Process(process.pid).children() if child.name() == name]
        return bool(found)

    _must_become_true(there)
    return found[0]


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _must_become_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_children_carry_the_mark(processes: Processes) -> None:
    process = processes.start(["sh", "-c", f"echo mark=${MARK}"])
    process.wait()
    assert process.log().strip() == f"mark={Run.of_process(os.getpid())}"
