# SPDX-License-Identifier: Apache-2.0
"""The Swift store while its cluster fails: killed in the middle of uploads and downloads, tokens that expire.

The cluster is these tests' own, and nothing is played. Threading: none of its own.
"""

from __future__ import annotations

import io
import logging
import secrets
import time
from collections.abc import Callable, Iterator

import pytest
from swiftclient import client as swiftclient

from glancefs.errors import StoreUnavailable
from glancefs.stores.base import Swept
from glancefs.stores.objects import ObjectStore
from glancefs.stores.pipeline import BLOCK
from glancefs.stores.swift import SwiftEngine
from glancefs.stores.swift_access import Credentials, SwiftAccess
from tests.contract.object_contract import PART
from tests.contract.store_steps import checksum_of, none_known, put, read, some_bytes
from tests.support.processes import Processes
from tests.support.swift import KEY, MOST_SEGMENTS, STRANGER, STRANGERS_KEY, USER, Swift, start_swift

pytestmark = pytest.mark.needs("swift")

TOKEN_LIFE = 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """A cluster whose proxy the tests kill and start again, with tokens that live for seconds."""
    folder = tmp_path_factory.mktemp("fragile")
    with Processes(folder) as processes:
        yield start_swift(processes, folder / "cluster", token_life=TOKEN_LIFE)


@pytest.fixture
def proxied(cluster: Swift) -> Iterator[Swift]:
    """The cluster, with a proxy before and after the test."""
    yield cluster
    if not cluster.servers["proxy"].running:
        cluster.start_proxy()


def make_store(cluster: Swift, *, user: str = USER, key: str = KEY, retries: int = 5) -> ObjectStore:
    access = SwiftAccess(credentials=Credentials(auth_url=cluster.auth_url, version="1", user=user, key=key))
    engine = SwiftEngine(access=access, container=f"images-{secrets.token_hex(4)}")
    return ObjectStore(scheme="swift", engine=engine, part_size=PART, retries=retries)


@pytest.fixture
def store(proxied: Swift) -> Iterator[ObjectStore]:
    store = make_store(proxied)
    yield store
    store.close()


class Interrupted:
    """A source at whose middle something happens."""

    def __init__(self, data: bytes, after: int, do: Callable[[], object]) -> None:
        self._data = io.BytesIO(data)
        self._after = after
        self._do = do
        self._is_done = False

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._is_done and self._data.tell() >= self._after:
            self._is_done = True
            self._do()
        return self._data.readinto(buffer)


def test_an_upload_outlives_a_proxy_that_is_killed_and_comes_back(store: ObjectStore, proxied: Swift) -> None:
    def restart() -> None:
        proxied.kill("proxy")
        proxied.start_proxy()

    data = some_bytes(12 * BLOCK)
    with store.claim() as key:
        stored = store.add(key, Interrupted(data, 7 * BLOCK, restart), size=None)
    assert stored.checksum == checksum_of(data)
    assert read(store, stored) == data
    assert store.sweep(lambda locations: locations) == Swept()


def test_a_download_goes_on_where_a_killed_proxy_cut_it(store: ObjectStore, proxied: Swift) -> None:
    data = some_bytes(24 * BLOCK)
    stored = put(store, data)
    with store.open(stored.location) as stream:
        pieces = [stream.read(9 * BLOCK + 5)]
        proxied.kill("proxy")
        proxied.start_proxy()
        pieces.extend(iter(lambda: stream.read(BLOCK), b""))
    assert b"".join(pieces) == data


@pytest.mark.expect_log(r"Store 'swift' failed at keeping data: its login does not answer")
def test_an_upload_during_which_swift_dies_is_refused_and_leaves_nothing_visible(proxied: Swift) -> None:
    store = make_store(proxied, retries=2)
    data = some_bytes(12 * BLOCK)
    with (
        store.claim() as key,
        pytest.raises(StoreUnavailable, match=r"failed at keeping data: its login does not answer\.$"),
    ):
        store.add(key, Interrupted(data, 7 * BLOCK, lambda: proxied.kill("proxy")), size=len(data))
    proxied.start_proxy()
    # The claim could not be ended, so what arrived is safe from sweeps until it is old; it is no image.
    assert store.sweep(none_known) == Swept()
    stored = put(store, data)
    assert read(store, stored) == data
    store.close()


def test_a_dead_swift_is_one_line_for_the_operator_and_names_no_host_to_the_caller(
    store: ObjectStore, proxied: Swift, caplog: pytest.LogCaptureFixture, expect_log: Callable[[str], None]
) -> None:
    expect_log("Store 'swift' failed at looking at data: its login does not answer")
    stored = put(store, b"data")
    proxied.kill("proxy")
    quick = ObjectStore(scheme="swift", engine=store._engine, part_size=PART, retries=1)
    with caplog.at_level(logging.WARNING), pytest.raises(StoreUnavailable) as raised:
        quick.size(stored.location)
    assert str(raised.value) == "The store 'swift' failed at looking at data: its login does not answer."
    assert len(caplog.records) == 1
    assert KEY not in caplog.text
    proxied.start_proxy()
    assert quick.size(stored.location) == 4


def test_tokens_that_expire_in_the_middle_are_renewed(store: ObjectStore) -> None:
    def outlive() -> None:
        # As if the login had not said how long tokens live: then the first to know is whoever is refused.
        store._engine._access._auth.auth_ref._expires = None  # type: ignore[attr-defined]  # the engine is Swift's
        time.sleep(TOKEN_LIFE + 1)

    data = some_bytes(9 * BLOCK)
    with store.claim() as key:
        stored = store.add(key, Interrupted(data, 5 * BLOCK, outlive), size=len(data))
    with store.open(stored.location) as stream:
        # Read in windows, of which the later ones are asked for with another token.
        pieces = [stream.read(BLOCK)]
        outlive()
        pieces.extend(iter(lambda: stream.read(BLOCK), b""))
    assert b"".join(pieces) == data


@pytest.mark.expect_log("failed at making its container: it answers 403")
@pytest.mark.expect_log("failed at making its container: its login refuses the credentials")
def test_credentials_that_do_not_serve_are_told_apart_and_never_told(
    proxied: Swift, caplog: pytest.LogCaptureFixture
) -> None:
    for user, key, message in (
        (STRANGER, STRANGERS_KEY, "it answers 403"),
        (USER, "wrong-key", "its login refuses the credentials"),
    ):
        store = make_store(proxied, user=user, key=key)
        with pytest.raises(StoreUnavailable, match=message) as raised:
            put(store, b"data")
        assert key not in f"{raised.value!r} {caplog.text}"
        store.close()


def test_parts_are_listed_in_lists_of_lists_and_removed_to_the_last(store: ObjectStore, cluster: Swift) -> None:
    data = some_bytes((2 * MOST_SEGMENTS * PART) + PART // 2)
    stored = put(store, data)
    assert read(store, stored) == data
    assert read(store, stored, 5 * PART - 1, 13 * PART + 1) == data[5 * PART - 1 : 13 * PART + 1]
    assert len(names(store, cluster)) == 1 + 17 + 3
    store.delete(stored.location)
    assert names(store, cluster) == []


def test_the_logs_of_the_clients_say_nothing_of_tokens(store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        stored = put(store, b"data")
        assert read(store, stored) == b"data"
    assert "AUTH_tk" not in caplog.text
    assert KEY not in caplog.text.replace(USER, "").replace("test", "")


def names(store: ObjectStore, cluster: Swift) -> list[str]:
    url, token = swiftclient.get_auth(cluster.auth_url, USER, KEY)
    _, entries = swiftclient.get_container(url, token, store._engine._container, full_listing=True)  # type: ignore[attr-defined]  # the engine is Swift's
    return [entry["name"] for entry in entries]
