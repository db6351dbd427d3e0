# SPDX-License-Identifier: Apache-2.0
"""Asking parts that hang, fail or are full how they are.

Threading: parts are asked in threads of their own; a test lets the ones that hang go.
"""

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway.health import Health
from glancefs.errors import RegistryUnavailable, StoreUnavailable
from glancefs.registries.base import Registry
from glancefs.stores.base import Space, Store
from glancefs.stores.memory import MemoryStore


class Part:
    """A registry or a store that answers as it is told to."""

    staging_folder = None

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer
        self.asked = 0

    def revision(self) -> int:
        """Answer as a registry."""
        return int(self._answered())

    def space(self) -> Space:
        """Answer as a store."""
        return cast("Space", self._answered())

    def _answered(self) -> Any:
        self.asked += 1
        return self.answer()


def health(
    registry: Callable[[], Any] = int, store: Callable[[], Any] | None = None, **options: float
) -> tuple[Health, Part]:
    """Give a health over such parts, and its registry."""
    part = Part(registry)
    kept = MemoryStore(scheme="file") if store is None else cast("Store", Part(store))
    return Health(registry=cast("Registry", part), stores={"file": kept}, **options), part


def unavailable() -> None:
    message = "The registry's database does not answer."
    raise RegistryUnavailable(message)


def gone() -> None:
    message = "The disk is gone."
    raise StoreUnavailable(message)


def test_all_is_well_where_every_part_answers() -> None:
    report = health(store=lambda: Space(total=1 << 40, free=1 << 30))[0].report()
    assert report.is_well
    assert report.parts == {"registry": "ok", "store file": "ok"}


@pytest.mark.expect_log("health of registry: does not answer")
@pytest.mark.expect_log("health of store file: does not answer")
def test_parts_that_fail_are_named() -> None:
    report = health(unavailable, gone)[0].report()
    assert not report.is_well
    assert report.parts == {"registry": "does not answer", "store file": "does not answer"}


@pytest.mark.expect_log("health of store file: has no room left")
def test_a_store_without_room_is_named() -> None:
    assert health(store=lambda: Space(total=1 << 40, free=0))[0].report().parts["store file"] == "has no room left"


@pytest.mark.expect_log("health of registry: does not answer")
def test_a_part_that_hangs_is_not_waited_for_and_not_asked_again_meanwhile() -> None:
    let_go = threading.Event()
    asked, registry = health(lambda: let_go.wait(20), timeout=0.05, age=0)
    assert asked.report().parts["registry"] == "does not answer"
    assert asked.report().parts["registry"] == "does not answer"
    assert registry.asked == 1
    let_go.set()
    while asked.report().parts["registry"] != "ok":
        pass
    assert asked.report().is_well


def test_a_fresh_answer_is_not_asked_for_again() -> None:
    asked, registry = health(age=3600)
    for _ in range(5):
        assert asked.report().is_well
    assert registry.asked == 1


@pytest.mark.expect_log("the health of registry could not be asked")
@pytest.mark.expect_log("health of registry: does not answer")
def test_a_part_that_breaks_is_unwell_and_the_log_has_the_traceback() -> None:
    assert health(lambda: 1 // 0)[0].report().parts["registry"] == "does not answer"
