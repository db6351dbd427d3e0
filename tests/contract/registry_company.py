# SPDX-License-Identifier: Apache-2.0
"""What every registry promises to many callers at once, threads and processes.

Answers for the part of the contract that needs company; see `registry_contract`. The other processes are this module,
run as a program: ``python -m ... BACKEND FOLDER``, where BACKEND is ``MODULE:CLASS`` of the test class.

Threading: races threads on purpose.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from glancefs.errors import Duplicate, StaleImage, Unavailable
from glancefs.registries.base import Registry
from tests.contract.registry_model import an_image
from tests.support.processes import PATIENCE, Processes

THREADS = 16
PROCESSES = 3
CONTESTED = [f"contested-{number}" for number in range(10)]
SHARED = "shared"
TIMES = 10

Outcome = TypeVar("Outcome")


def together(work: Callable[[int], Any], *, threads: int = THREADS) -> list[Any]:
    """Call the work from many threads at the same moment."""
    barrier = threading.Barrier(threads)

    def at_once(number: int) -> Any:
        barrier.wait(PATIENCE)
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(at_once, range(threads)))


def once_available(work: Callable[[], Outcome]) -> Outcome:
    """Call the work, again where the registry can't be had yet; a machine that is busy may need that."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def count_up(registry: Registry) -> int:
    """Raise the count that the shared image holds, whatever it takes. Gives how often somebody else was quicker."""
    refused = 0
    while True:
        image = registry.get(SHARED)
        raised = replace(image, properties={"count": str(int(image.properties["count"]) + 1)})
        try:
            registry.replace(raised, expected_revision=image.revision)
        except StaleImage:
            refused += 1
        else:
            return refused


def wins(registry: Registry, image_id: str, _thread: int = 0) -> bool:
    """Try to be the one who adds this image."""
    try:
        registry.add(an_image(id=image_id))
    except Duplicate:
        return False
    return True


def storm(registry: Registry, number: int, *, times: int) -> dict[str, Any]:
    """Do what one thread of many does. Gives what came of it."""
    ids = []
    won = []
    for turn in range(times):
        ids.append(registry.add(an_image(name=str(number))).id)
        count_up(registry)
        if wins(registry, CONTESTED[turn]):
            won.append(CONTESTED[turn])
    doomed = registry.get(ids[0])
    registry.delete(doomed.id, expected_revision=doomed.revision, deleted_at=datetime.now(UTC))
    return {"ids": ids, "won": won}


class Poller:
    """Follows the change feed from a thread of its own, as a mount does."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._poll)
        self.revisions: list[int] = []
        self.failure: str | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(PATIENCE)

    def _poll(self) -> None:
        since = 0
        while True:
            last = self._done.is_set()
            changes = self._registry.changes(since=since, limit=50)
            told = [image.revision for image in changes.images]
            if told != sorted(set(told)) or (told and told[0] <= since) or changes.revision < since:
                self.failure = f"{told} after {since}, up to {changes.revision}"
            self.revisions += told
            since = changes.revision
            if last and not told:
                return


class RegistryCompany:
    """Many callers; the fixture `registry` gives an empty registry, and `folder` where it is."""

    times: ClassVar[int] = 10
    """How often each caller does what it does."""
    other_processes = PROCESSES
    """How many share the registry; fewer where each call costs more."""

    def test_of_many_threads_one_gets_the_identifier(self, registry: Registry) -> None:
        for image_id in CONTESTED:
            won = together(partial(wins, registry, image_id))
            assert sorted(won) == [False] * (THREADS - 1) + [True]
        assert registry.revision() == len(CONTESTED)

    def test_of_many_changes_at_once_none_is_lost(self, registry: Registry) -> None:
        registry.add(an_image(id=SHARED, properties={"count": "0"}))
        together(lambda _: [count_up(registry) for _ in range(self.times)])
        assert registry.get(SHARED).properties["count"] == str(THREADS * self.times)
        assert registry.revision() == 1 + THREADS * self.times

    def test_of_many_deletions_at_once_one_succeeds(self, registry: Registry) -> None:
        added = registry.add(an_image())

        def deletes(_: int) -> str:
            try:
                registry.delete(added.id, expected_revision=added.revision, deleted_at=datetime.now(UTC))
            except Exception as error:  # noqa: BLE001 - the test tells them apart by name
                return type(error).__name__
            return "deleted"

        assert sorted(together(deletes)) == ["ImageNotFound"] * (THREADS - 1) + ["deleted"]

    def test_who_is_refused_does_not_spoil_it_for_others(self, registry: Registry) -> None:
        registry.add(an_image(id="taken"))

        def adds(number: int) -> str:
            mine = [f"{number}-{turn}" for turn in range(TIMES)]
            for image_id in mine:
                if wins(registry, "taken") or not wins(registry, image_id):
                    return "wrong"
            return "right"

        assert set(together(adds)) == {"right"}
        assert registry.revision() == 1 + THREADS * TIMES

    def test_a_follower_of_the_changes_misses_none(self, registry: Registry) -> None:
        registry.add(an_image(id=SHARED, properties={"count": "0"}))
        with Poller(registry) as poller:
            outcomes = together(lambda number: storm(registry, number, times=self.times))
        self._check_storm(registry, poller, outcomes)

    def test_processes_share_a_registry(self, registry: Registry, folder: Path, processes: Processes) -> None:
        registry.add(an_image(id=SHARED, properties={"count": "0"}))
        backend = f"{type(self).__module__}:{type(self).__qualname__}"
        with Poller(registry) as poller:
            started = [
                processes.start([sys.executable, "-m", __name__, backend, folder]) for _ in range(self.other_processes)
            ]
            assert [process.wait(timeout=120) for process in started] == [0] * self.other_processes, [
                process.log() for process in started
            ]
        outcomes = [json.loads(line) for process in started for line in process.log().splitlines()]
        assert len(outcomes) == self.other_processes * THREADS
        self._check_storm(registry, poller, outcomes)

    def _check_storm(self, registry: Registry, poller: Poller, outcomes: list[dict[str, Any]]) -> None:
        callers = len(outcomes)
        ids = [image_id for outcome in outcomes for image_id in outcome["ids"]]
        assert sorted(map(int, ids)) == list(range(1, callers * self.times + 1))
        assert sorted(image_id for outcome in outcomes for image_id in outcome["won"]) == CONTESTED[: self.times]
        assert registry.get(SHARED).properties["count"] == str(callers * self.times)
        changes = 1 + 2 * callers * self.times + self.times + callers
        assert registry.revision() == changes
        assert poller.failure is None
        # Every image's present state was told; and nothing twice.
        assert len(poller.revisions) == len(set(poller.revisions))
        present = {image.revision for image in registry.changes(since=0, limit=10_000).images}
        assert present <= set(poller.revisions)


def main(backend: str, folder: str) -> None:
    """Be one of the processes: open the registry, and let the threads go."""
    module, _, name = backend.partition(":")
    tested = getattr(import_module(module), name)
    registry: Registry = tested.open(Path(folder))
    for outcome in together(lambda number: storm(registry, number, times=tested.times)):
        sys.stdout.write(json.dumps(outcome) + "\n")
    registry.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
