# SPDX-License-Identifier: Apache-2.0
"""What every registry promises about write locks, as tests: one suite, run over each backend.

Answers for the sentences of `glancefs.registries.locks`, and for what the changes of `glancefs.registries.base` and
`glancefs.registries.folders` promise about them. A backend's test class says how to open a registry. The other
processes of the race are this module, run as a program: ``python -m ... BACKEND FOLDER``.

Threading: races threads and processes on purpose.
"""

from __future__ import annotations

import itertools
import json
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glancefs.errors import Duplicate, InvalidRequest, Locked, LockNotFound
from glancefs.model import Image, ImageStatus
from glancefs.paths import split
from glancefs.registries.base import Registry, Superseded
from glancefs.registries.folders import Folder, View
from glancefs.registries.locks import MAX_OWNER_XML, Lock, Presented, Touched
from tests.contract.registry_company import together
from tests.contract.registry_model import NOON, an_available_image, an_image
from tests.support.processes import Processes

HOUR = timedelta(hours=1)
ANN = View(viewer="ann")
NUMBERS = itertools.count()
PATHS = st.sampled_from(["", "a", "a/b", "a/b/c", "ab", "a!", "b", "é/b"])
RACES = 12
PROCESSES = 2


def a_lock(path: str = "a", **said: Any) -> Lock:
    fields: dict[str, Any] = {
        "token": f"urn:uuid:{next(NUMBERS)}",
        "path": path,
        "user": "ann",
        "guards": "ann",
        "created_at": NOON,
        "expires_at": NOON + HOUR,
    }
    return Lock(**fields | said)


def acquire(registry: Registry, path: str = "a", *, now: datetime = NOON, **said: Any) -> Lock:
    return registry.locks.acquire(a_lock(path, **said), now=now)


def by(*locks: Lock, user: str | None = "ann", at: datetime = NOON) -> Presented:
    return Presented(user=user, tokens=frozenset(lock.token for lock in locks), at=at)


def covering(registry: Registry, path: str, guarding: str | None = "ann", *, now: datetime = NOON) -> list[Lock]:
    return list(registry.locks.covering(path, guarding=guarding, now=now))


def put(registry: Registry, name: str, **said: Any) -> Image:
    return registry.add(an_available_image(name=name, **said))


def delete(registry: Registry, image: Image, presented: Presented) -> None:
    registry.delete(image.id, expected_revision=image.revision, deleted_at=NOON, presented=presented)


def superseded(image: Image) -> Superseded:
    return Superseded(image_id=image.id, expected_revision=image.revision, deleted_at=NOON)


# The rules once more, in the plainest way


def is_at_or_below(path: str, folder: str) -> bool:
    return folder in {"", path} or path.startswith(f"{folder}/")


def holds(lock: Lock, path: str) -> bool:
    return lock.path == path or (lock.is_deep and is_at_or_below(path, lock.path))


def guard_the_same(one: str | None, other: str | None) -> bool:
    return None in {one, other} or one == other


def conflict(new: Lock, old: Lock) -> bool:
    meet = holds(old, new.path) or (new.is_deep and is_at_or_below(old.path, new.path))
    return meet and guard_the_same(new.guards, old.guards) and not (new.is_shared and old.is_shared)


def is_hindered(locks: list[Lock], touched: Touched, presented: Presented) -> bool:
    relevant = [lock for lock in locks if guard_the_same(lock.guards, touched.guarding)]
    paths = {touched.path}
    if touched.is_bound and touched.path:
        paths.add(split(touched.path)[0])
    if touched.is_deep:
        paths |= {lock.path for lock in relevant if is_at_or_below(lock.path, touched.path)}
    for path in paths:
        covers = [lock for lock in relevant if holds(lock, path)]
        if covers and not any(lock.token in presented.tokens and lock.user == presented.user for lock in covers):
            return True
    return False


LOCKS = st.builds(
    a_lock,
    token=st.just("to be given"),
    path=PATHS,
    user=st.sampled_from(["ann", "bob"]),
    guards=st.sampled_from(["ann", "ann", "bob", None]),
    is_shared=st.booleans(),
    is_deep=st.booleans(),
)
TOUCHES = st.builds(
    Touched,
    path=PATHS,
    guarding=st.sampled_from(["ann", "ann", "bob", None]),
    is_bound=st.booleans(),
    is_deep=st.booleans(),
)


def gets(registry: Registry, lock: Lock) -> bool:
    try:
        return registry.locks.acquire(lock, now=NOON) == lock
    except Locked:
        return False


def passes(registry: Registry, touched: Touched, presented: Presented) -> bool:
    try:
        registry.locks.check([touched], presented)
    except Locked:
        return False
    return True


class LockContract:
    """Subclass this as ``Test...`` and say how a registry is opened."""

    @staticmethod
    def open(folder: Path) -> Registry:
        """Open the registry of a folder, which is made if there is none; many processes may do so."""
        raise NotImplementedError

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Name the folder of the registry under test."""
        return tmp_path / "registry"

    @pytest.fixture
    def registry(self, folder: Path) -> Iterator[Registry]:
        """Open an empty registry."""
        registry = self.open(folder)
        yield registry
        registry.close()

    # Keeping

    def test_a_lock_is_kept_as_it_was_said(self, registry: Registry) -> None:
        said = a_lock("é/b", owner_xml="<href>mailto:a&amp;b</href>", is_deep=True, is_shared=True, guards=None)
        assert registry.locks.acquire(said, now=NOON) == said
        assert registry.locks.get(said.token, now=NOON) == said
        assert covering(registry, "é/b/c/d") == [said]

    def test_the_root_can_be_locked(self, registry: Registry) -> None:
        lock = acquire(registry, "", is_deep=True)
        assert covering(registry, "") == covering(registry, "x/y") == [lock]
        with pytest.raises(Locked) as refused:
            registry.add(an_image(name="new"), presented=by())
        assert refused.value.path == ""

    def test_what_no_lock_can_be_is_refused(self, registry: Registry) -> None:
        with pytest.raises(InvalidRequest):
            acquire(registry, owner_xml="x" * (MAX_OWNER_XML + 1))
        token = acquire(registry, "x").token
        with pytest.raises(Duplicate):
            acquire(registry, "y", token=token)

    def test_a_lock_that_is_given_back_hinders_nobody(self, registry: Registry) -> None:
        lock = acquire(registry)
        with pytest.raises(LockNotFound):
            registry.locks.release(lock.token, user="bob", now=NOON)
        assert registry.locks.release(lock.token, user="ann", now=NOON) == lock
        with pytest.raises(LockNotFound):
            registry.locks.get(lock.token, now=NOON)
        assert acquire(registry, user="bob").user == "bob"

    def test_an_admin_breaks_anybodys(self, registry: Registry) -> None:
        lock = acquire(registry)
        registry.locks.release(lock.token, user=None, now=NOON)
        assert covering(registry, "a") == []

    def test_a_lock_expires_by_itself_and_a_refresh_puts_that_off(self, registry: Registry) -> None:
        lock = acquire(registry)
        before, then, later = NOON + HOUR - timedelta(seconds=1), NOON + HOUR, NOON + 2 * HOUR
        with pytest.raises(LockNotFound):
            registry.locks.refresh(lock.token, user="bob", expires_at=later, now=NOON)
        assert covering(registry, "a", now=before) == [lock]
        assert covering(registry, "a", now=then) == []
        refreshed = registry.locks.refresh(lock.token, user="ann", expires_at=later, now=before)
        assert refreshed == replace(lock, expires_at=later)
        with pytest.raises(Locked):
            put_by(registry, "a", by(at=then))
        put_by(registry, "a", by(at=later))
        for ask in (registry.locks.get, lambda token, now: registry.locks.release(token, user="ann", now=now)):
            with pytest.raises(LockNotFound):
                ask(lock.token, now=later)
        # The expired one is in nobody's way, and clearing it away is nobody's duty.
        assert acquire(registry, now=later, expires_at=later + HOUR).path == "a"

    def test_what_changes_at_once_meets_the_locks_as_they_are_by_then(self, registry: Registry) -> None:
        image = put(registry, "a")
        lock = acquire(registry, "a", expires_at=NOON + timedelta(seconds=1))

        def change(number: int) -> str:
            try:
                if number % 2:
                    registry.locks.refresh(lock.token, user="ann", expires_at=NOON + HOUR, now=NOON)
                else:
                    put_by(registry, "a", by(at=NOON + timedelta(minutes=1)))
            except (Locked, LockNotFound) as error:
                return type(error).__name__
            return "refreshed" if number % 2 else "added"

        outcomes = together(change, threads=8)
        # Whoever came before the first refresh found the lock expired, and with that it was gone for good.
        assert set(outcomes) in ({"added", "LockNotFound"}, {"refreshed", "Locked"}), outcomes
        assert registry.get(image.id) == image

    def test_looking_below_gives_what_is_below_and_no_more(self, registry: Registry) -> None:
        made = {path: acquire(registry, path) for path in ("a", "a/b", "a/b/c", "a!", "ab", "é/b")}
        below = registry.locks.below("a", guarding="ann", now=NOON)
        assert [lock.path for lock in below] == ["a/b", "a/b/c"]
        assert set(registry.locks.below("", guarding=None, now=NOON)) == set(made.values())
        assert not registry.locks.below("", guarding="bob", now=NOON)

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(
        wanted=st.lists(st.tuples(LOCKS, st.booleans()), max_size=6),
        touches=st.lists(TOUCHES, min_size=1, max_size=4),
        user=st.sampled_from(["ann", "bob"]),
    )
    def test_who_is_hindered_is_what_the_rules_say(
        self, registry: Registry, wanted: list[tuple[Lock, bool]], touches: list[Touched], user: str
    ) -> None:
        held: list[Lock] = []
        shown: list[Lock] = []
        try:
            for lock, is_shown in wanted:
                fresh = replace(lock, token=f"urn:uuid:{next(NUMBERS)}")
                assert gets(registry, fresh) == (not any(conflict(fresh, other) for other in held))
                if registry.locks.covering(fresh.path, guarding=None, now=NOON).count(fresh):
                    held.append(fresh)
                    shown += [fresh] if is_shown else []
            presented = by(*shown, user=user)
            for touched in touches:
                assert passes(registry, touched, presented) == (not is_hindered(held, touched, presented))
        finally:
            for lock in registry.locks.covering("", guarding=None, now=NOON):
                registry.locks.release(lock.token, user=None, now=NOON)
            for lock in registry.locks.below("", guarding=None, now=NOON):
                registry.locks.release(lock.token, user=None, now=NOON)

    def test_who_checks_learns_whether_there_are_any(self, registry: Registry) -> None:
        touched = [Touched(path="a", guarding="ann")]
        assert not registry.locks.check(touched, by())
        lock = acquire(registry, "b")
        assert registry.locks.check(touched, by())
        registry.locks.release(lock.token, user="ann", now=NOON)
        assert not registry.locks.check(touched, by())

    # Changes of images

    def test_a_locked_image_changes_for_who_presents_the_token(self, registry: Registry) -> None:
        image = put(registry, "a/b")
        lock = acquire(registry, "a/b")
        renamed = replace(image, properties={"k": "v"})
        for presented in (by(), by(lock, user="bob"), by(a_lock())):
            with pytest.raises(Locked, match="'a/b' is locked by ann until 2024-05-17 13:00:00 UTC") as refused:
                registry.replace(renamed, expected_revision=image.revision, presented=presented)
            assert refused.value.path == "a/b"
            with pytest.raises(Locked):
                delete(registry, image, presented)
        assert registry.replace(renamed, expected_revision=image.revision).properties == {"k": "v"}
        changed = registry.get(image.id)
        registry.replace(changed, expected_revision=changed.revision, presented=by(lock))
        assert covering(registry, "a/b") == [lock]

    def test_what_takes_an_images_place_is_locked_in_its_turn(self, registry: Registry) -> None:
        image = put(registry, "a")
        lock = acquire(registry, "a")
        new = an_available_image(name="a")
        with pytest.raises(Locked):
            registry.add(new, superseding=superseded(image), presented=by())
        with pytest.raises(Locked):
            # Not even beside it: whoever locked the path decides what is there.
            registry.add(new, presented=by())
        taken = registry.add(new, superseding=superseded(image), presented=by(lock))
        assert covering(registry, "a") == [lock]
        with pytest.raises(Locked):
            delete(registry, taken, by())

    def test_a_lock_goes_with_what_is_deleted_or_renamed_away(self, registry: Registry) -> None:
        image = put(registry, "a")
        lock = acquire(registry, "a")
        delete(registry, image, by(lock))
        assert covering(registry, "a") == []
        image = put(registry, "a")
        lock = acquire(registry, "a")
        moved = registry.replace(replace(image, name="b"), expected_revision=image.revision, presented=by(lock))
        assert covering(registry, "a") == covering(registry, "b") == []
        delete(registry, moved, by())

    def test_a_lock_at_the_place_where_something_moves_stays_there(self, registry: Registry) -> None:
        moved, there = put(registry, "a"), put(registry, "b")
        lock = acquire(registry, "b")
        onto = replace(moved, name="b")
        with pytest.raises(Locked):
            registry.replace(onto, expected_revision=moved.revision, superseding=superseded(there), presented=by())
        registry.replace(onto, expected_revision=moved.revision, superseding=superseded(there), presented=by(lock))
        assert covering(registry, "b") == [lock]

    @pytest.mark.parametrize("is_deep", [False, True])
    def test_a_locked_folder_gets_and_loses_nothing(self, registry: Registry, *, is_deep: bool) -> None:
        image, outside = put(registry, "a/b"), put(registry, "x")
        lock = acquire(registry, "a", is_deep=is_deep)
        with pytest.raises(Locked):
            registry.add(an_image(name="a/new"), presented=by())
        with pytest.raises(Locked):
            registry.replace(replace(outside, name="a/x"), expected_revision=outside.revision, presented=by())
        with pytest.raises(Locked):
            registry.replace(replace(image, name="b"), expected_revision=image.revision, presented=by())
        with pytest.raises(Locked):
            delete(registry, image, by())
        # Section 7.4: only a deep lock protects what is in it itself.
        if is_deep:
            with pytest.raises(Locked):
                registry.replace(image, expected_revision=image.revision, presented=by())
        else:
            image = registry.replace(image, expected_revision=image.revision, presented=by())
        delete(registry, image, by(lock))
        registry.add(an_image(name="a/new"), presented=by(lock))
        assert covering(registry, "a") == [lock]

    def test_a_lock_guards_one_users_things_and_tells_others_nothing(self, registry: Registry) -> None:
        acquire(registry, "a", is_deep=True)
        theirs = put_by(registry, "a/b", by(user="bob"), owner="bob")
        delete(registry, theirs, by(user="bob"))
        assert covering(registry, "a/b", "bob") == []
        assert acquire(registry, "a", user="bob", guards="bob").guards == "bob"
        with pytest.raises(Locked):
            acquire(registry, "a", user="root", guards=None)

    def test_an_admins_lock_guards_everybodys(self, registry: Registry) -> None:
        lock = acquire(registry, "a", user="root", guards=None, is_deep=True)
        for owner in ("ann", "bob"):
            with pytest.raises(Locked):
                put_by(registry, "a/b", by(user=owner), owner=owner)
        put_by(registry, "a/b", by(lock, user="root"), owner="bob")

    def test_of_namesakes_the_one_that_has_the_path_is_locked(self, registry: Registry) -> None:
        first, second = put(registry, "a"), put(registry, "a")
        lock = acquire(registry, "a")
        beside = acquire(registry, f"a~{second.id}")
        with pytest.raises(Locked):
            registry.replace(second, expected_revision=second.revision, presented=by(lock))
        registry.replace(second, expected_revision=second.revision, presented=by(beside))
        registry.replace(first, expected_revision=first.revision, presented=by(lock))
        registry.locks.release(beside.token, user="ann", now=NOON)
        second = registry.get(second.id)
        registry.replace(second, expected_revision=second.revision, presented=by())

    def test_an_image_beside_a_folder_of_its_name_is_not_locked_with_it(self, registry: Registry) -> None:
        image, below = put(registry, "a"), put(registry, "a/b")
        acquire(registry, "a", is_deep=True)
        registry.replace(image, expected_revision=image.revision, presented=by())
        with pytest.raises(Locked):
            registry.replace(below, expected_revision=below.revision, presented=by())

    def test_who_presents_nothing_and_is_nobody_is_the_house_itself(self, registry: Registry) -> None:
        image = registry.add(an_image(name="a", status=ImageStatus.SAVING))
        acquire(registry, "a")
        again = replace(image, status=ImageStatus.QUEUED)
        assert registry.replace(again, expected_revision=image.revision).status is ImageStatus.QUEUED

    # Changes of folders

    def test_folders_are_made_removed_and_dated_under_their_locks(self, registry: Registry) -> None:
        parent = acquire(registry, "")
        folder = Folder(path="a", owner="ann", created_at=NOON)
        with pytest.raises(Locked):
            registry.folders.add_folder(folder, presented=by())
        registry.folders.add_folder(folder, presented=by(parent))
        lock, deeper = acquire(registry, "a"), acquire(registry, "a/nothing/yet")
        with pytest.raises(Locked):
            registry.folders.set_folder_mtime(replace(folder, mtime_ns=1), presented=by(parent))
        registry.folders.set_folder_mtime(replace(folder, mtime_ns=1), presented=by(lock))
        for presented in (by(), by(lock), by(parent, lock), by(lock, deeper)):
            with pytest.raises(Locked):
                registry.folders.remove_folder("a", ANN, removed_at=NOON, presented=presented)
        registry.folders.remove_folder("a", ANN, removed_at=NOON, presented=by(parent, lock, deeper))
        assert not registry.locks.below("", guarding=None, now=NOON)

    def test_a_folder_moves_for_who_unlocks_all_of_it_and_leaves_the_locks(self, registry: Registry) -> None:
        put(registry, "a/b/c")
        lock = acquire(registry, "a/b/c")
        there = acquire(registry, "z", is_deep=True)
        for presented in (by(), by(lock), by(there)):
            with pytest.raises(Locked):
                registry.folders.move_folder("a", "z", ANN, moved_at=NOON, presented=presented)
        assert registry.folders.move_folder("a", "z", ANN, moved_at=NOON, presented=by(lock, there)) == 1
        assert covering(registry, "a/b/c") == []
        assert covering(registry, "z/b/c") == [there]

    def test_a_folder_of_mine_moves_past_the_locks_of_others(self, registry: Registry) -> None:
        put(registry, "a/b")
        theirs = acquire(registry, "a", user="bob", guards="bob", is_deep=True)
        assert registry.folders.move_folder("a", "z", ANN, moved_at=NOON, presented=by()) == 1
        assert covering(registry, "a", "bob") == [theirs]

    def test_what_the_registry_does_not_know_is_forgotten_by_hand(self, registry: Registry) -> None:
        lock, below, other = acquire(registry, "a"), acquire(registry, "a/.part"), acquire(registry, "b")
        with pytest.raises(Locked):
            registry.locks.forget("a", guarding="ann", presented=by(lock))
        registry.locks.forget("a", guarding="ann", presented=by(lock, below))
        assert registry.locks.below("", guarding=None, now=NOON) == [other]

    # Company

    def test_of_many_at_once_one_gets_an_exclusive_lock(
        self, registry: Registry, folder: Path, processes: Processes
    ) -> None:
        backend = f"{type(self).__module__}:{type(self).__qualname__}"
        started = [processes.start([sys.executable, "-m", __name__, backend, folder]) for _ in range(PROCESSES)]
        assert [process.wait(timeout=120) for process in started] == [0] * PROCESSES, [
            process.log() for process in started
        ]
        lines = [json.loads(line) for process in started for line in process.log().splitlines()]
        for race in range(RACES):
            exclusive = [line for line in lines if line["race"] == race and line["kind"] == "exclusive" and line["won"]]
            deep = [line for line in lines if line["race"] == race and line["kind"] == "deep" and line["won"]]
            shared = [line for line in lines if line["race"] == race and line["kind"] == "shared" and line["won"]]
            # Either one alone, or shared ones only.
            assert len(exclusive) + len(deep) + bool(shared) == 1, (race, exclusive, deep, shared)
        assert len(registry.locks.below("", guarding=None, now=NOON)) == sum(line["won"] for line in lines)


def put_by(registry: Registry, name: str, presented: Presented, **said: Any) -> Image:
    return registry.add(an_available_image(name=name, **said), presented=presented)


def race(registry: Registry, number: int) -> list[dict[str, Any]]:
    """Try to get a lock in each race, of the kind that is this thread's."""
    kind = ("exclusive", "deep", "shared")[number % 3]
    outcomes = []
    for race_number in range(RACES):
        path = f"{race_number}" if kind == "deep" else f"{race_number}/image"
        token = f"urn:uuid:{uuid.uuid4()}"
        lock = a_lock(path, token=token, user=f"user-{number}", is_shared=kind == "shared", is_deep=kind == "deep")
        try:
            registry.locks.acquire(lock, now=NOON)
        except Locked:
            outcomes.append({"race": race_number, "kind": kind, "won": False})
        else:
            outcomes.append({"race": race_number, "kind": kind, "won": True})
    return outcomes


def main(backend: str, folder: str) -> None:
    """Be one of the processes: open the registry, and let the threads go."""
    module, _, name = backend.partition(":")
    registry: Registry = getattr(import_module(module), name).open(Path(folder))
    for outcomes in together(lambda number: race(registry, number), threads=6):
        for outcome in outcomes:
            sys.stdout.write(json.dumps(outcome) + "\n")
    registry.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
