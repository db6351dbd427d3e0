# SPDX-License-Identifier: Apache-2.0
"""What stores without locks promise between processes: claims that die of their age, and of nothing else.

The other process is this module, run as a program: ``python -m ... WHAT KIND URL CONTAINER``. Claims live for seconds
here, not minutes.

Threading: none of its own.
"""

from __future__ import annotations

import io
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from glancefs.errors import ConfigError, DataMissing, StoreUnavailable
from glancefs.model import Location
from glancefs.stores.base import Swept
from glancefs.stores.objects import ObjectStore, Timing
from glancefs.stores.owner import Owner
from glancefs.stores.pipeline import BLOCK
from glancefs.stores.s3 import S3Engine, S3Settings, make_client
from glancefs.stores.swift import SwiftEngine
from glancefs.stores.swift_access import Credentials, SwiftAccess
from tests.contract.object_contract import PAGE, PART
from tests.contract.store_contract import Breaking
from tests.contract.store_steps import none_known, put, read, some_bytes
from tests.support.capabilities import ROOT
from tests.support.processes import PATIENCE, Process, Processes
from tests.support.swift import KEY, USER, Swift

pytestmark = pytest.mark.needs("swift")

KINDS = ("swift", "s3")
TIMING = Timing(beat=0.5, grace=8.0, watch=4.0)
"""S3 tells times in whole seconds."""
ARRIVED = 2 * PART + 5


def make_store(kind: str, url: str, container: str, owner: Owner | None = None) -> ObjectStore:
    engine: S3Engine | SwiftEngine
    if kind == "s3":
        settings = S3Settings(
            bucket=container, endpoint_url=url, region="us-east-1", access_key=USER, secret_key=KEY, path_style=True
        )
        engine = S3Engine(settings, client=make_client(settings))
    else:
        credentials = Credentials(auth_url=f"{url}/auth/v1.0", version="1", user=USER, key=KEY)
        engine = SwiftEngine(access=SwiftAccess(credentials=credentials), container=container, page_size=PAGE)
    return ObjectStore(scheme=kind, engine=engine, part_size=PART, retries=3, timing=TIMING, owner=owner)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def container() -> str:
    return f"images-{secrets.token_hex(4)}"


@pytest.fixture
def store(kind: str, swift: Swift, container: str) -> Iterator[ObjectStore]:
    store = make_store(kind, swift.url, container)
    yield store
    store.close()


def test_claims_die_of_age_with_their_process_and_the_sweep_takes_the_rest(
    swift: Swift, container: str, processes: Processes
) -> None:
    # Both kinds in one test, since it is waiting that takes its time.
    stores = [make_store(kind, swift.url, container + kind) for kind in KINDS]
    started: list[tuple[ObjectStore, Process]] = []
    for store in stores:
        for what in ("upload", "complete"):
            words = [sys.executable, "-m", __name__, what, store.scheme, swift.url, container + store.scheme]
            started.append((store, processes.start(words, cwd=ROOT)))
    claimed = [(store, location_of(process, store)) for store, process in started]
    # They live longer than the grace, since they are renewed.
    time.sleep(TIMING.grace + 1)
    assert all(store.is_claimed(location) for store, location in claimed)
    assert [store.sweep(none_known) for store in stores] == [Swept()] * 2
    for _, process in started:
        process.send(signal.SIGKILL)
        process.wait()
    killed_at = time.monotonic()
    held = [store.is_claimed(location) for store, location in claimed]
    early = [store.sweep(none_known) for store in stores]
    # Where looking took too long, what was found says nothing about this moment.
    if time.monotonic() - killed_at < TIMING.grace / 2:
        assert all(held)
        assert early == [Swept()] * 2
    deadline = time.monotonic() + PATIENCE
    while any(store.is_claimed(location) for store, location in claimed):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with ThreadPoolExecutor(2) as pool:
        late = pool.map(lambda store: store.sweep(none_known), stores)
        for first, then in zip(early, late, strict=True):
            assert (first.uploads + then.uploads, first.orphans + then.orphans) == (1, 1)
            assert first.size + then.size >= PART + 8
    assert [store.sweep(none_known) for store in stores] == [Swept()] * 2
    for store, location in claimed:
        with pytest.raises(DataMissing):
            store.open(location)
    for store in stores:
        store.close()


def location_of(process: Process, store: ObjectStore) -> Location:
    return Location(store=store.scheme, key=process.wait_for_line(r"^([0-9a-f]{32})$")[1])


@pytest.mark.expect_log("Store '.*' failed at reading data", optional=True)
def test_data_that_another_process_deletes_are_missed_and_never_wrong(
    store: ObjectStore, kind: str, swift: Swift, container: str
) -> None:
    data = some_bytes(12 * BLOCK)
    stored = put(store, data)
    other = make_store(kind, swift.url, container)
    with store.open(stored.location) as stream:
        pieces = [stream.read(100)]
        other.delete(stored.location)
        with pytest.raises((DataMissing, StoreUnavailable)):
            pieces.extend(iter(lambda: stream.read(BLOCK), b""))
    assert data.startswith(b"".join(pieces))
    other.close()


@pytest.mark.parametrize("is_noticed_late", [False, True])
def test_whose_claim_was_taken_back_gives_up_and_leaves_nothing(
    store: ObjectStore, kind: str, swift: Swift, container: str, *, is_noticed_late: bool
) -> None:
    other = make_store(kind, swift.url, container)

    def lose() -> None:
        other._engine.remove(f"claims/{key}")
        # Noticed by the next beat, or only when it is looked for because no beat got through for long.
        deadline = time.monotonic() + PATIENCE
        while not is_noticed_late and not store._claims._claims[key].is_lost:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        store._claims._claims[key].renewed -= TIMING.grace

    with pytest.raises(StoreUnavailable, match="was given up"), store.claim() as key:
        store.add(key, Breaking(2 * PART + 5, lose), size=None)
    assert other.sweep(none_known) == Swept()
    with pytest.raises(DataMissing):
        other.open(Location(store=store.scheme, key=key))
    other.close()


def test_a_container_belongs_to_one_registry(kind: str, swift: Swift, container: str) -> None:
    ours = make_store(kind, swift.url, container, Owner(registry="ours", has_images=False))
    stored = put(ours, b"precious")
    others = make_store(kind, swift.url, container, Owner(registry="theirs", has_images=False))
    for use in (lambda: put(others, b"more"), lambda: others.sweep(none_known)):
        with pytest.raises(ConfigError, match="keeps the images of another registry"):
            use()
    again = make_store(kind, swift.url, container, Owner(registry="ours", has_images=True))
    assert again.sweep(lambda locations: locations) == Swept()
    assert read(again, stored) == b"precious"
    for one in (ours, others, again):
        one.close()


def test_an_empty_container_is_not_taken_for_that_of_a_registry_with_images(
    kind: str, swift: Swift, container: str
) -> None:
    store = make_store(kind, swift.url, container, Owner(registry="ours", has_images=True))
    with pytest.raises(ConfigError, match="is empty, and the registry names images in it"):
        put(store, b"data")
    store.close()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def be_other_process(what: str, kind: str, url: str, container: str) -> None:
    store = make_store(kind, url, container)
    with store.claim() as key:

        def wait() -> None:
            say(key)
            time.sleep(600)

        if what == "upload":
            store.add(key, Breaking(ARRIVED, wait), size=None)
        else:
            store.add(key, io.BytesIO(b"complete"), size=8)
        wait()


if __name__ == "__main__":
    be_other_process(*sys.argv[1:])
