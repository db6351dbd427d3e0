# SPDX-License-Identifier: Apache-2.0
"""What every registry promises of its lists, held against `registry_model`.

Answers for the part of the contract that is `find`; see `registry_contract`. Says nothing of what lists cost.

Threading: none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from glancefs.errors import InvalidQuery
from glancefs.model import MAX_NUMBER, Image, ImageStatus
from glancefs.registries.base import ImageQuery, Registry, SortDirection, SortKey, every_image
from tests.contract.registry_keeping import LATER, MANY_EXAMPLES
from tests.contract.registry_model import (
    NOON,
    TEXTS,
    Model,
    an_available_image,
    an_image,
    everything,
    images,
    queries,
)

ALL = ImageQuery(sees_all=True, is_public=None)


def names(found: Sequence[Image]) -> list[str]:
    return [image.name for image in found]


class RegistryLists:
    """One caller; the fixture `registry` gives an empty registry."""

    @pytest.fixture
    def kinds(self, registry: Registry) -> Registry:
        """Fill the registry with one image of each kind that visibility knows."""
        for owner in ("ann", "bob", None):
            for is_public in (True, False):
                which = f"{'public' if is_public else 'private'} of {owner}"
                registry.add(an_available_image(owner=owner, is_public=is_public, name=which))
                registry.add(an_image(owner=owner, is_public=is_public, name=f"empty {which}"))
        return registry

    def test_strangers_see_what_is_public_and_available(self, kinds: Registry) -> None:
        expected = ["public of ann", "public of bob", "public of None"]
        for is_public in (True, None):
            query = ImageQuery(is_public=is_public, sort_direction=SortDirection.ASCENDING)
            assert names(kinds.find(query)) == expected
        assert not kinds.find(ImageQuery(is_public=False))

    def test_owners_see_all_of_their_own_too(self, kinds: Registry) -> None:
        query = ImageQuery(viewer="bob", is_public=None, sort_direction=SortDirection.ASCENDING)
        assert names(kinds.find(query)) == [
            "public of ann",
            "public of bob",
            "empty public of bob",
            "private of bob",
            "empty private of bob",
            "public of None",
        ]
        assert names(kinds.find(replace(query, is_public=False))) == ["private of bob", "empty private of bob"]
        assert names(kinds.find(replace(query, owner="ann"))) == ["public of ann"]
        assert len(kinds.find(replace(query, owner="bob"))) == 4

    def test_admins_see_everything(self, kinds: Registry) -> None:
        assert len(kinds.find(ALL)) == 12
        assert len(kinds.find(replace(ALL, is_public=True))) == 6
        assert len(kinds.find(replace(ALL, is_public=False))) == 6
        assert len(kinds.find(replace(ALL, owner="ann"))) == 4

    def test_lists_begin_with_the_newest(self, registry: Registry) -> None:
        for age in (2, 0, 1):
            registry.add(an_image(name=str(age), created_at=NOON - timedelta(seconds=age)))
        assert names(registry.find(ALL)) == ["0", "1", "2"]

    def test_equal_ones_are_in_the_order_of_addition(self, registry: Registry) -> None:
        for number in range(5):
            registry.add(an_image(name=str(number), id=f"{9 - number}"))
        for key in {*SortKey} - {SortKey.ID, SortKey.NAME}:
            ascending = replace(ALL, sort_key=key, sort_direction=SortDirection.ASCENDING)
            assert names(registry.find(ascending)) == ["0", "1", "2", "3", "4"]
            assert names(registry.find(replace(ascending, sort_direction=SortDirection.DESCENDING))) == [
                *reversed("01234")
            ]

    def test_an_unset_value_comes_before_every_other(self, registry: Registry) -> None:
        for disk_format in ("raw", None, "ami"):
            registry.add(an_image(name=str(disk_format), disk_format=disk_format))
        query = replace(ALL, sort_key=SortKey.DISK_FORMAT, sort_direction=SortDirection.ASCENDING)
        assert names(registry.find(query)) == ["None", "ami", "raw"]

    def test_a_marker_may_be_deleted(self, registry: Registry) -> None:
        added = [registry.add(an_image(name=str(number))) for number in range(4)]
        registry.delete(added[2].id, expected_revision=added[2].revision, deleted_at=LATER)
        assert names(registry.find(replace(ALL, marker=added[2].id))) == ["1", "0"]

    def test_a_marker_that_names_no_image_is_refused(self, registry: Registry) -> None:
        registry.add(an_image())
        for marker in ("2", "", "\ud800"):
            for query in (replace(ALL, marker=marker), ImageQuery(marker=marker), ImageQuery(marker=marker, limit=0)):
                with pytest.raises(InvalidQuery):
                    registry.find(query)

    def test_limits(self, registry: Registry) -> None:
        for _ in range(3):
            registry.add(an_image())
        assert [len(registry.find(replace(ALL, limit=limit))) for limit in (0, 1, 2**70)] == [0, 1, 3]
        with pytest.raises(InvalidQuery):
            registry.find(replace(ALL, limit=-1))

    def test_sizes_reach_as_far_as_numbers_do(self, registry: Registry) -> None:
        for size in (0, MAX_NUMBER):
            registry.add(an_image(name=str(size), size=size))
        assert len(registry.find(replace(ALL, size_min=MAX_NUMBER))) == 1
        assert len(registry.find(replace(ALL, size_max=2**70))) == 2
        assert len(registry.find(replace(ALL, size_min=-(2**70), size_max=-1))) == 0
        assert len(registry.find(replace(ALL, size_min=2**70))) == 0

    @MANY_EXAMPLES
    @given(TEXTS, TEXTS)
    def test_any_text_is_found_by_itself_alone(self, registry: Registry, text: str, other: str) -> None:
        added = registry.add(an_image(name=text, owner=text[:255], properties={"key": text}))
        registry.add(an_image(name=other, owner=other[:255], properties={"key": other}))
        for query in (replace(ALL, name=text), replace(ALL, owner=text[:255]), replace(ALL, properties={"key": text})):
            found = registry.find(query)
            assert added in found
            assert all(image.properties["key"].startswith(text[:255]) for image in found)

    def test_all_properties_must_be_there(self, registry: Registry) -> None:
        registry.add(an_image(name="both", properties={"os": "linux", "arch": "arm"}))
        registry.add(an_image(name="one", properties={"os": "linux"}))
        assert names(registry.find(replace(ALL, properties={"os": "linux", "arch": "arm"}))) == ["both"]
        assert names(registry.find(replace(ALL, properties={"os": "linux"}))) == ["one", "both"]
        assert not registry.find(replace(ALL, properties={"os": "linux", "arch": "x"}))
        assert not registry.find(replace(ALL, properties={"o": "s=linux"}))

    def test_with_changed_since_deletions_are_told(self, registry: Registry) -> None:
        public = registry.add(an_available_image(name="public", is_public=True))
        private = registry.add(an_available_image(name="private", owner="ann"))
        empty = registry.add(an_image(name="empty", is_public=True, owner="ann"))
        registry.add(an_available_image(name="stays", is_public=True))
        for image in (public, private, empty):
            registry.delete(image.id, expected_revision=image.revision, deleted_at=LATER)
        assert names(registry.find(ImageQuery(is_public=None))) == ["stays"]
        since = ImageQuery(is_public=None, changed_since=LATER)
        assert names(registry.find(since)) == ["public"]
        assert names(registry.find(replace(since, viewer="ann"))) == ["empty", "private", "public"]
        assert names(registry.find(replace(since, changed_since=NOON))) == ["stays", "public"]
        assert names(registry.find(replace(since, changed_since=NOON, status=ImageStatus.DELETED))) == ["public"]
        assert not registry.find(replace(since, changed_since=LATER + timedelta(seconds=1), sees_all=True))

    def test_pages_of_texts_that_begin_alike_leave_none_out(self, registry: Registry) -> None:
        for name in ["", "a", "\0", "a\0", "a ", "a\0\0", "\1", "A", "a\1"] * 3:
            registry.add(an_image(name=name))
            registry.add(an_available_image(name=name, is_public=True))
        for direction in SortDirection:
            query = replace(ALL, sort_key=SortKey.NAME, sort_direction=direction)
            whole = list(registry.find(query))
            expected = sorted(names(whole), reverse=direction is SortDirection.DESCENDING)
            assert names(whole) == expected
            for size in (1, 2, 5):
                assert list(every_image(registry, query, page_size=size)) == whole

    @MANY_EXAMPLES
    @given(st.data())
    def test_paging_visits_everything_once(self, registry: Registry, data: st.DataObject) -> None:
        for image in data.draw(st.lists(images(), max_size=5)):
            registry.add(image)
        query = everything(data.draw(queries()))
        # Other examples' images are there too; so the list itself says what there is.
        whole = list(registry.find(replace(query, limit=100_000)))
        pages = every_image(registry, query, page_size=data.draw(st.integers(1, 7)))
        visited = list(islice(pages, len(whole) + 1))
        assert visited == whole
        assert len({image.id for image in visited}) == len(visited)


class ListsMachine(RuleBasedStateMachine):
    """Adds, changes and deletes at random; every list must be the model's. Give it an empty `registry`."""

    registry: Registry
    living = Bundle("living")

    @initialize()
    def begin(self) -> None:
        self.model = Model()
        self.seen = 0

    @rule(target=living, image=images())
    def add(self, image: Image) -> str:
        added = self.registry.add(image)
        self.model.put(added)
        return added.id

    @rule(image_id=living, changed=images())
    def replace(self, image_id: str, changed: Image) -> None:
        revision = self.model.images[image_id].revision
        self.model.put(self.registry.replace(replace(changed, id=image_id), expected_revision=revision))

    @rule(image_id=consumes(living), seconds=st.integers(0, 3))
    def delete(self, image_id: str, seconds: int) -> None:
        revision = self.model.images[image_id].revision
        deleted_at = NOON + timedelta(seconds=seconds)
        self.model.put(self.registry.delete(image_id, expected_revision=revision, deleted_at=deleted_at))

    @rule(data=st.data())
    def find(self, data: st.DataObject) -> None:
        for _ in range(5):
            query = data.draw(queries(ids=list(self.model.images)))
            assert list(self.registry.find(query)) == list(self.model.find(query)), query

    @rule()
    def count(self) -> None:
        living = [image for image in self.model.images.values() if image.status is not ImageStatus.DELETED]
        held = {(held.status, held.store): (held.images, held.size) for held in self.registry.holdings()}
        expected: dict[tuple[ImageStatus, str], tuple[int, int]] = {}
        for image in living:
            count, size = expected.get((image.status, image.store), (0, 0))
            expected[image.status, image.store] = count + 1, size + image.size
        assert held == expected

    @invariant()
    def changes_tell_all(self) -> None:
        if not hasattr(self, "model"):
            return
        changes = self.registry.changes(since=self.seen)
        news = [image for image in self.model.images.values() if image.revision > self.seen]
        assert list(changes.images) == sorted(news, key=lambda image: image.revision)
        self.seen = changes.revision
