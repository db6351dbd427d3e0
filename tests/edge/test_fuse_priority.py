# SPDX-License-Identifier: Apache-2.0
"""The loop is answered for by its thread alone: it is preferred, and what it starts is not."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
import trio

from glancefs.fuse.priority import Pace


def in_a_thread(work: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.needs("root")
def test_a_thread_that_answers_soon_is_preferred_to_what_it_starts() -> None:
    usual = niceness()
    found: list[int] = []

    def work() -> None:
        Pace().begin()
        found.append(niceness())
        in_a_thread(lambda: found.append(niceness()))
        said = subprocess.run([sys.executable, "-c", "import os; print(os.nice(0))"], check=True, capture_output=True)
        found.append(int(said.stdout))

    in_a_thread(work)
    assert found == [usual - 10, usual, usual]
    assert niceness() == usual


@pytest.mark.needs("root")
def test_what_the_operator_has_said_of_the_process_holds_on() -> None:
    found: list[tuple[int, int]] = []

    def be_nice() -> None:
        os.setpriority(os.PRIO_PROCESS, 0, 15)
        Pace().begin()
        found.append((os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, niceness()))

    def be_first() -> None:
        os.setpriority(os.PRIO_PROCESS, 0, -3)
        Pace().begin()
        in_a_thread(lambda: found.append((os.sched_getscheduler(0), niceness())))

    def be_last() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        Pace().begin()
        found.append((os.sched_getscheduler(0), niceness()))

    usual = niceness()
    in_a_thread(be_nice)
    in_a_thread(be_first)
    in_a_thread(be_last)
    assert found == [(os.SCHED_OTHER, 5), (os.SCHED_OTHER, -3), (os.SCHED_IDLE, usual)]


def test_who_may_not_be_preferred_gets_shorter_turns_alone() -> None:
    script = (
        "import os\n"
        "from glancefs.fuse.priority import Pace\n"
        "os.getuid() or os.setresuid(65534, 65534, 65534)\n"
        "usual = os.nice(0)\n"
        "Pace().begin()\n"
        "print(os.nice(0) - usual, bool(os.sched_getscheduler(0) & os.SCHED_RESET_ON_FORK))\n"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert said.stdout == "0 True\n"


@pytest.mark.needs("root")
def test_who_writes_is_served_at_the_usual_pace() -> None:
    usual = niceness()
    found: list[int] = []

    def work() -> None:
        pace = Pace()
        pace.begin()
        for step in (pace.begin_write, pace.begin_write, pace.end_write, pace.end_write):
            step()
            found.append(niceness())

    in_a_thread(work)
    assert found == [usual, usual, usual, usual - 10]


@pytest.mark.needs("two cores")
def test_where_many_files_come_the_loop_stays_on_one_core_for_a_while() -> None:
    found: list[int] = []

    async def main() -> None:
        pace = Pace()

        def is_shared() -> bool:
            return pace.cores.home is not None

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pace.run)
            for _ in range(3):
                pace.begin_write()
            found.append(len(os.sched_getaffinity(0)))
            while is_shared():  # noqa: ASYNC110 - nobody tells of it
                await trio.sleep(0.05)
            found.append(len(os.sched_getaffinity(0)))
            # The end of the mount, while they come again.
            while not is_shared():
                pace.begin_write()
                await trio.sleep(0.005)
            nursery.cancel_scope.cancel()
        found.append(len(os.sched_getaffinity(0)))

    trio.run(main)
    cores = len(os.sched_getaffinity(0))
    assert found == [1, cores, cores]
