# SPDX-License-Identifier: Apache-2.0
"""Threads that take turns share a core while many things come, and go anywhere again."""

import os
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator

import pytest

from glancefs.cores import LASTING, Cores, roam

ALL = frozenset(os.sched_getaffinity(0))
pytestmark = pytest.mark.needs("two cores")


class Clock:
    """A time that passes as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Others:
    """Neighbours that have cores already."""

    def __init__(self, taken: Collection[int]) -> None:
        self.taken = taken
        self.told: list[int | None] = []

    def cores_of_others(self) -> Collection[int]:
        return self.taken

    def take_core(self, core: int | None) -> None:
        self.told.append(core)


@pytest.fixture(autouse=True)
def the_threads_of_others_are_left_alone() -> Iterator[None]:
    yield
    os.sched_setaffinity(0, ALL)


def gathered(cores: Cores) -> int:
    cores.note()
    assert cores.note()
    assert cores.home is not None
    return cores.home


def place() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(0))


class Mate:
    """Another thread, which goes where it is told."""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores
        self._found: list[frozenset[int]] = []

    def does(self, *things: str) -> list[frozenset[int]]:
        """Where it was before, and after it began each thing."""

        def work() -> None:
            self._found.append(place())
            for thing in things:
                self._cores.enter(is_brief=thing == "brief")
                self._found.append(place())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return self._found


def test_what_comes_now_and_then_moves_nobody() -> None:
    clock = Clock()
    cores = Cores(clock=clock)
    for _ in range(5):
        assert not cores.note()
        clock.now += 0.11
    assert (cores.home, place()) == (None, ALL)


def test_where_many_come_threads_share_the_core_of_who_notes_that() -> None:
    cores = Cores(clock=Clock())
    home = gathered(cores)
    assert place() == {home}
    assert not cores.note()
    # A thread inherits where it runs, and what is long sends it away.
    assert Mate(cores).does("brief", "long", "brief") == [{home}, {home}, ALL, {home}]


def test_after_a_while_they_part_and_meet_again_only_once_the_scheduler_had_its_say() -> None:
    clock = Clock()
    cores = Cores(clock=clock)
    home = gathered(cores)
    clock.now += LASTING
    cores.part_in_time()
    assert place() == {home}
    clock.now += 0.01
    cores.part_in_time()
    assert place() == ALL
    assert not cores.note()
    assert Mate(cores).does("brief") == [ALL, ALL]
    clock.now += 0.03
    assert cores.note()


def test_who_transfers_leaves_and_comes_back_for_the_next() -> None:
    cores = Cores(clock=Clock())
    home = gathered(cores)
    cores.leave()
    assert place() == ALL
    cores.enter(is_brief=True)
    assert place() == {home}


def test_processes_share_different_cores_while_there_are_enough() -> None:
    others = Others([])
    first = gathered(Cores(clock=Clock(), neighbours=others))
    assert others.told == [first]
    os.sched_setaffinity(0, ALL)
    second = Others([first])
    cores = Cores(clock=Clock(), neighbours=second)
    cores._current = lambda: first
    assert gathered(cores) != first
    cores.part()
    assert second.told[-1] is None
    assert gathered(Cores(clock=Clock(), neighbours=Others(ALL))) in ALL


def test_what_the_operator_says_of_a_running_process_holds() -> None:
    clock = Clock()
    cores = Cores(clock=clock)
    home = gathered(cores)
    cores.part()
    os.sched_setaffinity(0, {home})
    clock.now += 1
    cores.note()
    assert not cores.note()
    cores.enter(is_brief=True)
    cores.leave()
    assert place() == {home}


def test_a_thread_that_computes_runs_anywhere_whoever_starts_it() -> None:
    gathered(Cores(clock=Clock()))
    found = []

    def work() -> None:
        found.append(len(place()))
        roam()
        found.append(len(place()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [1, len(ALL)]


def test_where_the_operator_gave_one_core_nothing_changes() -> None:
    script = (
        "import os\n"
        f"os.sched_setaffinity(0, {{{min(ALL)}}})\n"
        "from glancefs.cores import Cores\n"
        "cores = Cores()\n"
        "print(cores.note(), cores.note(), cores.home)\n"
        "cores.enter(is_brief=True)\n"
        "print(sorted(os.sched_getaffinity(0)))\n"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert said.stdout == f"False False None\n[{min(ALL)}]\n"


def test_where_it_may_not_be_said_everything_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int, _mask: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "sched_setaffinity", refuse)
        cores = Cores(clock=Clock())
        cores.note()
        assert not cores.note()
        cores.enter(is_brief=True)
        roam()
    assert (cores.home, place()) == (None, ALL)
    assert not cores.note()
