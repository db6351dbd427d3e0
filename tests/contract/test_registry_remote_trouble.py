# SPDX-License-Identifier: Apache-2.0
"""What `glancefs.registries.remote` promises when the network or the server fails: nothing twice, nothing misreported.

Threading: some tests race threads on purpose.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from glancefs.errors import ConfigError, Duplicate, FolderNotEmpty, InvalidQuery, RegistryUnavailable, StaleImage
from glancefs.model import Image
from glancefs.registries.base import Answered, ImageQuery, Registry, Superseded
from glancefs.registries.folders import Folder, View
from glancefs.registries.remote import RemoteRegistry
from tests.contract.registry_company import SHARED, THREADS, count_up, once_available, together
from tests.contract.registry_model import an_available_image, an_image
from tests.support.processes import PATIENCE, free_port
from tests.support.proxies import Proxy, Trouble
from tests.support.registries import TOKEN, RegistryService

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ANN = View(viewer="ann")


@dataclass(slots=True, kw_only=True)
class Distance:
    """A registry, and the way to it."""

    near: Registry
    """The registry itself."""
    far: RemoteRegistry
    proxy: Proxy


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RegistryService]:
    service = RegistryService(tmp_path / "registry")
    yield service
    service.stop()


@pytest.fixture
def distance(service: RegistryService) -> Iterator[Distance]:
    with Proxy(service.url) as proxy, closing(RemoteRegistry(url=proxy.url, token=TOKEN, timeout=30)) as far:
        far.revision()
        yield Distance(near=service.registry, far=far, proxy=proxy)


def supersedes(registry: Registry, image: Image) -> Image:
    superseded = Superseded(image_id=image.id, expected_revision=image.revision, deleted_at=NOW)
    return registry.add(an_image(name="new"), superseding=superseded)


CHANGES: dict[str, Callable[[Registry, Image], object]] = {
    "add": lambda registry, _: registry.add(an_available_image(name="new")),
    "add with an id": lambda registry, _: registry.add(an_image(id="mine")),
    "supersede": supersedes,
    "replace": lambda registry, image: registry.replace(replace(image, name="b"), expected_revision=image.revision),
    "delete": lambda registry, image: registry.delete(image.id, expected_revision=image.revision, deleted_at=NOW),
    "add a folder": lambda registry, _: registry.folders.add_folder(Folder(path="f", owner="ann", created_at=NOW)),
    "touch a folder": lambda registry, _: registry.folders.set_folder_mtime(
        Folder(path="f", owner="ann", created_at=NOW, mtime_ns=5)
    ),
    "remove a folder": lambda registry, _: registry.folders.remove_folder("made", ANN, removed_at=NOW),
    "move a folder": lambda registry, _: registry.folders.move_folder("a", "b", ANN, moved_at=NOW),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_whose_answers_are_lost_is_made_once_and_answered(
    distance: Distance, tmp_path: Path, change: str
) -> None:
    answers = []
    with RegistryService(tmp_path / "undisturbed") as undisturbed:
        for registry, troubles in (
            (undisturbed.registry, []),
            (distance.far, [Trouble.LOSE_REQUEST, Trouble.LOSE_ANSWER, Trouble.LOSE_ANSWER]),
        ):
            image = registry.add(an_image(name="a/1"))
            registry.folders.add_folder(Folder(path="made", owner="ann", created_at=NOW))
            before = registry.revision()
            distance.proxy.next = troubles
            answers.append((CHANGES[change](registry, image), registry.changes(since=before)))
            assert not distance.proxy.next
    assert answers[0] == answers[1]


def test_a_refusal_whose_answer_is_lost_is_a_refusal(distance: Distance) -> None:
    image = distance.far.add(an_image(id="a", name="x/y"))
    for refused, error in (
        (lambda: distance.far.add(an_image(id="a")), Duplicate),
        (lambda: distance.far.replace(image, expected_revision=77), StaleImage),
        (lambda: distance.far.find(ImageQuery(marker="none")), InvalidQuery),
        (lambda: distance.far.folders.remove_folder("x", ANN, removed_at=NOW), FolderNotEmpty),
    ):
        distance.proxy.next = [Trouble.LOSE_ANSWER]
        with pytest.raises(error):
            refused()
    assert distance.near.revision() == image.revision


def test_a_key_of_the_callers_tells_afterwards_whether_its_change_was_made(
    service: RegistryService, distance: Distance
) -> None:
    for number, registry in enumerate((service.registry, distance.far)):
        key = f"a-key-of-the-callers-{number}"
        assert registry.answered(key) is None
        added = registry.once(key).add(an_image())
        assert registry.once(key).add(an_image(name="another")) == added
        assert registry.answered(key) == Answered(image=added)
        folder = Folder(path=f"folder-{number}", owner="ann", created_at=NOW)
        registry.folders.add_folder(folder)
        registry.once(f"{key}-removed").folders.remove_folder(folder.path, ANN, removed_at=NOW)
        assert registry.answered(f"{key}-removed") == Answered()
        with pytest.raises(RegistryUnavailable):
            registry.once(f"{key}-late", until=time.time() - 1).add(an_image())
        assert registry.answered(f"{key}-late") is None


def test_a_change_that_another_made_alike_is_not_taken_for_our_own(distance: Distance) -> None:
    image = distance.near.add(an_image())
    alike = replace(image, name="alike")
    distance.near.replace(alike, expected_revision=image.revision)
    distance.proxy.next = [Trouble.LOSE_REQUEST]
    with pytest.raises(StaleImage):
        distance.far.replace(alike, expected_revision=image.revision)


def test_a_change_that_was_made_and_changed_again_meanwhile_is_answered_as_it_was(distance: Distance) -> None:
    image = distance.near.add(an_image())

    class Meddling(Proxy):
        def _choose(self) -> Trouble:
            if self.troubles == 1:
                ours = distance.near.get(image.id)
                distance.near.replace(replace(ours, name="theirs"), expected_revision=ours.revision)
            return super()._choose()

    with Meddling(distance.proxy.url) as proxy, closing(RemoteRegistry(url=proxy.url, token=TOKEN, timeout=30)) as far:
        proxy.next = [Trouble.LOSE_ANSWER]
        ours = far.replace(replace(image, name="ours"), expected_revision=image.revision)
    assert (ours.name, ours.revision) == ("ours", 2)
    assert (distance.near.get(image.id).name, distance.near.revision()) == ("theirs", 3)


def test_of_many_changes_on_a_bad_line_none_is_lost_and_none_made_twice(distance: Distance) -> None:
    distance.far.add(an_image(id=SHARED, properties={"count": "0"}))
    distance.proxy.chance = 0.15
    times = 5
    together(lambda _: [(count_up(distance.far), distance.far.add(an_image())) for _ in range(times)])
    assert distance.proxy.troubles > THREADS // 2
    assert distance.near.get(SHARED).properties["count"] == str(THREADS * times)
    assert distance.near.revision() == 1 + 2 * THREADS * times


def test_a_registry_that_stands_still_is_unavailable_in_time_and_admits_what_it_does_not_know(
    service: RegistryService,
) -> None:
    with Proxy(service.url) as proxy, closing(RemoteRegistry(url=proxy.url, token=TOKEN, timeout=0.5)) as far:
        proxy.next = [Trouble.HANG] * 2
        with pytest.raises(RegistryUnavailable, match="in time"):
            far.revision()
        with pytest.raises(RegistryUnavailable, match="whether the change was made is not known"):
            far.add(an_image())
        assert once_available(far.revision) == 0


def test_a_registry_that_is_away_is_unavailable_and_back_by_itself(tmp_path: Path) -> None:
    port = free_port()
    with closing(RemoteRegistry(url=f"http://127.0.0.1:{port}", token=TOKEN, timeout=1)) as far:
        for _ in range(2):
            with pytest.raises(RegistryUnavailable, match="can't be reached: Connection refused") as away:
                far.add(an_image())
            assert "not known" not in str(away.value)
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(RegistryUnavailable):
                far.revision()
        # While it is down, whoever asks learns of it at once: far less than twenty times the timeout.
        assert time.monotonic() - began < 15
        with RegistryService(tmp_path / "registry", listen=f"127.0.0.1:{port}"):
            assert once_available(lambda: far.add(an_image())).id == "1"


def test_a_call_bridges_a_restart(tmp_path: Path) -> None:
    port = free_port()
    with closing(RemoteRegistry(url=f"http://127.0.0.1:{port}", token=TOKEN, timeout=30)) as far:
        for number in range(1, 4):
            with RegistryService(tmp_path / "registry", listen=f"127.0.0.1:{port}"):
                assert far.add(an_image()).id == str(number)


@pytest.mark.expect_log("is not the registry's token", optional=True)
def test_trouble_between_us_and_the_registry_is_never_the_callers_fault(tmp_path: Path) -> None:
    with RegistryService(tmp_path / "registry") as service:
        for url, token, said in (
            (service.url, "another", "does not take our registry_token"),
            (service.url, None, "does not take our registry_token"),
            (f"{service.url}/elsewhere", TOKEN, "refuses: There is nothing at"),
        ):
            with closing(RemoteRegistry(url=url, token=token)) as far:
                with pytest.raises(RegistryUnavailable, match=said) as refused:
                    far.get("1")
                assert TOKEN not in str(refused.value)


def test_what_is_no_registry_is_told_apart(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"SSH-2.0-OpenSSH_9.2\r\n"]

        def answer() -> None:
            for one in answers:
                peer, _ = listener.accept()
                with peer:
                    peer.recv(1 << 16)
                    peer.sendall(one)

        with closing(RemoteRegistry(url=url, timeout=1)) as far:
            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(RegistryUnavailable, match="something else than a registry"):
                far.revision()
            with pytest.raises(RegistryUnavailable):
                far.revision()
            thread.join(PATIENCE)


@pytest.mark.parametrize("url", ["http://", "http://me:secret@host:9191", "http://host:99999"])
def test_a_url_that_leads_nowhere_is_the_operators_to_mend(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        RemoteRegistry(url=url)
    assert "secret" not in str(refused.value)
