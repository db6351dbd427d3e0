# SPDX-License-Identifier: Apache-2.0
"""What every registry promises to one caller at a time: keeping images, changing them, telling of changes.

Answers for the part of the contract that needs no company; see `registry_contract`.

Threading: none.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from glancefs.errors import Duplicate, ImageNotFound, InvalidRequest, RegistryUnavailable, StaleImage
from glancefs.model import MAX_NAME, MAX_NUMBER, MAX_PROPERTY_VALUE, Image, ImageStatus, Location
from glancefs.registries.base import Holdings, Registry
from tests.contract.registry_model import NOON, TEXTS, an_available_image, an_image

# Many examples run over one registry, and each backend inherits the test; no example minds what others put there.
KEYS = st.from_regex("[a-z0-9_]{1,255}", fullmatch=True)
MANY_EXAMPLES = settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
)
LATER = NOON + timedelta(hours=1)


class RegistryKeeping:
    """One caller; the fixture `registry` gives an empty registry."""

    def test_an_image_comes_back_as_it_was_added(self, registry: Registry) -> None:
        image = an_available_image(
            id="web-1.2_x",
            size=MAX_NUMBER,
            virtual_size=MAX_NUMBER,
            min_disk=MAX_NUMBER,
            min_ram=0,
            protected=True,
            is_public=True,
            disk_format="qcow2",
            container_format="bare",
            updated_at=LATER,
            properties={"os": "linux", "empty": ""},
        )
        added = registry.add(image)
        assert added == replace(image, revision=added.revision)
        assert registry.get("web-1.2_x") == added

    def test_what_was_not_said_stays_unset(self, registry: Registry) -> None:
        added = registry.add(an_image(owner=None))
        got = registry.get(added.id)
        assert got == added
        assert (got.owner, got.checksum, got.location, got.deleted_at, got.disk_format) == (None,) * 5
        assert (got.virtual_size, got.min_disk, got.min_ram, dict(got.properties)) == (None, None, None, {})

    @MANY_EXAMPLES
    @given(
        TEXTS,
        TEXTS.filter(lambda text: len(text) <= 255),
        st.dictionaries(KEYS, TEXTS, max_size=5),
    )
    @example("\N{GRINNING FACE}" * MAX_NAME, "\0", {"k" * 255: "x" * MAX_PROPERTY_VALUE})
    @example("e\N{COMBINING ACUTE ACCENT}\0\r\n'\"%", "", {"nul": "a\0b", "lone": "\x7f"})
    def test_any_text_is_kept(self, registry: Registry, name: str, owner: str, properties: dict[str, str]) -> None:
        added = registry.add(an_image(name=name, owner=owner, properties=properties))
        got = registry.get(added.id)
        assert (got.name, got.owner, dict(got.properties)) == (name, owner, properties)

    @MANY_EXAMPLES
    @given(st.datetimes(datetime(1902, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001 - Hypothesis adds the zone
    def test_times_are_kept_to_the_second(self, registry: Registry, time: datetime) -> None:
        whole = time.replace(microsecond=0)
        added = registry.add(an_image(created_at=whole, updated_at=whole))
        assert registry.get(added.id).created_at == whole
        assert registry.get(added.id).updated_at.tzinfo is UTC

    def test_an_unknown_identifier_is_not_found(self, registry: Registry) -> None:
        for unknown in ["1", "", "a\0b", "\N{GRINNING FACE}", "\ud800", "x" * 100_000]:
            with pytest.raises(ImageNotFound):
                registry.get(unknown)

    def test_generated_identifiers_are_whole_numbers_in_their_order(self, registry: Registry) -> None:
        assert [registry.add(an_image()).id for _ in range(3)] == ["1", "2", "3"]

    def test_generated_identifiers_skip_those_that_users_took(self, registry: Registry) -> None:
        for taken in ["1", "3", "4", "05"]:
            registry.add(an_image(id=taken))
        assert [registry.add(an_image()).id for _ in range(3)] == ["2", "5", "6"]

    def test_a_long_row_of_taken_identifiers_is_skipped(self, registry: Registry) -> None:
        for number in range(1, 1203):
            registry.add(an_image(id=str(number)))
        assert registry.add(an_image()).id == "1203"
        assert registry.add(an_image()).id == "1204"

    def test_an_identifier_is_never_used_again(self, registry: Registry) -> None:
        added = registry.add(an_image())
        registry.delete(added.id, expected_revision=added.revision, deleted_at=LATER)
        assert registry.add(an_image()).id == "2"
        with pytest.raises(Duplicate):
            registry.add(an_image(id="1"))

    def test_what_can_not_be_kept_is_refused_and_counts_for_nothing(self, registry: Registry) -> None:
        for impossible in (an_image(size=2**63), an_image(name="\ud800"), an_image(id="\udcff")):
            with pytest.raises(InvalidRequest):
                registry.add(impossible)
        added = registry.add(an_image())
        assert (added.id, added.revision, registry.revision()) == ("1", 1, 1)

    def test_a_taken_identifier_is_refused_and_changes_nothing(self, registry: Registry) -> None:
        added = registry.add(an_image(id="mine"))
        with pytest.raises(Duplicate):
            registry.add(an_image(id="mine", name="other"))
        assert registry.get("mine") == added
        assert registry.revision() == added.revision

    def test_identifiers_that_differ_in_case_are_different(self, registry: Registry) -> None:
        registry.add(an_image(id="A", name="upper"))
        registry.add(an_image(id="a", name="lower"))
        assert (registry.get("A").name, registry.get("a").name) == ("upper", "lower")

    def test_replacing_takes_every_field_over(self, registry: Registry) -> None:
        added = registry.add(an_image(properties={"kept": "1", "changed": "1", "gone": "1"}))
        changed = an_available_image(
            id=added.id,
            name="new",
            owner="bob",
            is_public=True,
            protected=True,
            min_ram=5,
            updated_at=LATER,
            properties={"kept": "1", "changed": "2", "new": "1"},
        )
        replaced = registry.replace(changed, expected_revision=added.revision)
        assert replaced == replace(changed, revision=replaced.revision)
        assert replaced.revision > added.revision
        assert registry.get(added.id) == replaced

    def test_replacing_a_changed_image_is_refused(self, registry: Registry) -> None:
        added = registry.add(an_image())
        replaced = registry.replace(replace(added, name="first"), expected_revision=added.revision)
        with pytest.raises(StaleImage):
            registry.replace(replace(added, name="second"), expected_revision=added.revision)
        with pytest.raises(StaleImage):
            registry.delete(added.id, expected_revision=added.revision, deleted_at=LATER)
        assert registry.get(added.id) == replaced
        assert registry.revision() == replaced.revision

    def test_deleting_leaves_a_tombstone(self, registry: Registry) -> None:
        added = registry.add(an_available_image(properties={"os": "linux"}))
        tombstone = registry.delete(added.id, expected_revision=added.revision, deleted_at=LATER)
        assert tombstone == replace(
            added, status=ImageStatus.DELETED, deleted_at=LATER, location=None, revision=tombstone.revision
        )
        assert registry.get(added.id) == tombstone

    def test_what_is_not_there_can_be_neither_replaced_nor_deleted(self, registry: Registry) -> None:
        added = registry.add(an_image())
        tombstone = registry.delete(added.id, expected_revision=added.revision, deleted_at=LATER)
        for image, revision in [(tombstone, tombstone.revision), (added, added.revision), (an_image(id="no"), 0)]:
            with pytest.raises(ImageNotFound):
                registry.replace(image, expected_revision=revision)
            with pytest.raises(ImageNotFound):
                registry.delete(image.id, expected_revision=revision, deleted_at=LATER)
        assert registry.revision() == tombstone.revision

    def test_every_change_has_the_next_revision(self, registry: Registry) -> None:
        assert registry.revision() == 0
        first = registry.add(an_image())
        second = registry.add(an_image())
        third = registry.replace(first, expected_revision=first.revision)
        fourth = registry.delete(second.id, expected_revision=second.revision, deleted_at=LATER)
        assert [image.revision for image in (first, second, third, fourth)] == [1, 2, 3, 4]
        assert registry.revision() == 4

    def test_changes_tell_each_changed_image_once_as_it_is(self, registry: Registry) -> None:
        first, second, third = (registry.add(an_image()) for _ in range(3))
        changed = registry.replace(first, expected_revision=first.revision)
        gone = registry.delete(second.id, expected_revision=second.revision, deleted_at=LATER)
        assert registry.changes(since=0).images == (third, changed, gone)
        assert registry.changes(since=0).revision == gone.revision
        assert registry.changes(since=changed.revision).images == (gone,)
        assert registry.changes(since=gone.revision).images == ()
        assert registry.changes(since=gone.revision).revision == gone.revision

    def test_changes_come_in_pieces(self, registry: Registry) -> None:
        added = [registry.add(an_image()) for _ in range(7)]
        told: list[Image] = []
        since = 0
        for _ in range(3):
            piece = registry.changes(since=since, limit=3)
            told += piece.images
            since = piece.revision
        assert told == added
        assert since == registry.revision()

    def test_an_empty_registry_tells_of_no_changes(self, registry: Registry) -> None:
        assert (registry.changes(since=0).images, registry.changes(since=0).revision) == ((), 0)

    def test_named_locations_are_those_of_images_that_live(self, registry: Registry) -> None:
        named, gone, unknown = (Location(store="file", key=key) for key in ("a:b", "gone", "unknown"))
        registry.add(an_available_image(location=named))
        added = registry.add(an_available_image(location=gone))
        registry.delete(added.id, expected_revision=added.revision, deleted_at=LATER)
        many = [Location(store="file", key=str(number)) for number in range(1234)]
        assert set(registry.named_locations([*many, named, gone, unknown])) == {named}
        assert not registry.named_locations([])

    def test_holdings_count_what_lives(self, registry: Registry) -> None:
        assert list(registry.holdings()) == []
        registry.add(an_available_image(size=MAX_NUMBER))
        changed = registry.add(an_available_image(size=MAX_NUMBER))
        gone = registry.add(an_image(size=5, store="other"))
        queued = registry.add(an_image(size=3, store="other"))
        registry.delete(gone.id, expected_revision=gone.revision, deleted_at=LATER)
        expected = [
            Holdings(status=ImageStatus.AVAILABLE, store="file", images=2, size=2 * MAX_NUMBER),
            Holdings(status=ImageStatus.QUEUED, store="other", images=1, size=3),
        ]
        assert sorted(registry.holdings(), key=lambda held: held.status) == expected
        registry.replace(replace(changed, size=1, store="other"), expected_revision=changed.revision)
        registry.delete(queued.id, expected_revision=queued.revision, deleted_at=LATER)
        expected = [
            Holdings(status=ImageStatus.AVAILABLE, store="file", images=1, size=MAX_NUMBER),
            Holdings(status=ImageStatus.AVAILABLE, store="other", images=1, size=1),
        ]
        assert sorted(registry.holdings(), key=lambda held: held.store) == expected

    def test_a_closed_registry_answers_no_more(self, registry: Registry) -> None:
        registry.add(an_image())
        registry.close()
        registry.close()
        with pytest.raises(RegistryUnavailable):
            registry.get("1")
        with pytest.raises(RegistryUnavailable):
            registry.add(an_image())
