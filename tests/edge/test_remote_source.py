# SPDX-License-Identifier: Apache-2.0
"""Ranges of an image of a server: whole, or an error.

Threading: none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from glancefs.client import Client
from glancefs.errors import DataMissing, Unavailable
from glancefs.model import Image, ImageStatus, ImageType
from glancefs.remote_source import RemoteSource, SourceReader
from tests.support.cli import ServeFolder
from tests.support.proxies import Proxy, Trouble

DATA = bytes(range(256)) * 20_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def image_of(client: Client) -> Image:
    meta = client.add_image({"name": "disk", "type": "raw"}, DATA)
    return made(id=str(meta["id"]), checksum=str(meta["checksum"]))


def made(*, id: str, checksum: str | None = None) -> Image:
    return Image(
        id=id,
        name="disk",
        type=ImageType.RAW,
        status=ImageStatus.AVAILABLE,
        size=len(DATA),
        store="file",
        owner="local",
        is_public=False,
        created_at=NOW,
        updated_at=NOW,
        checksum=checksum,
    )


@pytest.fixture
def client(tmp_path: Path, served: ServeFolder) -> Iterator[Client]:
    with Client(served(tmp_path / "data")) as client:
        yield client


def test_a_range_comes_whole(client: Client) -> None:
    image = image_of(client)
    source = RemoteSource(client=client, image=image)
    assert (source.size, source.checksum) == (len(DATA), image.checksum)
    assert source.fetch(1000, 300_001) == DATA[1000:300_001]
    assert source.fetch(len(DATA) - 1, len(DATA)) == DATA[-1:]
    assert source.fetch(7, 7) == b""


def test_many_threads_share_a_source(client: Client) -> None:
    source = RemoteSource(client=client, image=image_of(client))
    found: dict[int, bytes | bytearray] = {}

    def fetch(start: int) -> None:
        found[start] = source.fetch(start, start + 4096)

    threads = [threading.Thread(target=fetch, args=[number * 100_001]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {start: DATA[start : start + 4096] for start in range(0, 12 * 100_001, 100_001)}


def test_a_lost_answer_is_asked_for_again(client: Client) -> None:
    image = image_of(client)
    with Proxy(client.url) as proxy, Client(proxy.url) as far:
        proxy.next = [Trouble.LOSE_ANSWER]
        assert RemoteSource(client=far, image=image).fetch(5, 50_000) == DATA[5:50_000]
        assert proxy.troubles == 1


def test_an_image_that_was_deleted_meanwhile_is_missing_and_no_end(client: Client) -> None:
    image = image_of(client)
    source = RemoteSource(client=client, image=image)
    client.delete_image(image.id)
    with pytest.raises(DataMissing, match="was deleted"):
        source.fetch(0, 10)


def test_a_server_that_is_gone_is_unavailable() -> None:
    with Client("http://127.0.0.1:1", timeout=1, tries=1) as client:
        source = RemoteSource(client=client, image=made(id="1"))
        with pytest.raises(Unavailable):
            source.fetch(0, 10)


def test_a_reader_over_a_source_reads_as_one_over_a_store(client: Client) -> None:
    image = image_of(client)
    with SourceReader(image=image, source=RemoteSource(client=client, image=image)) as reader:
        assert reader.file is None
        assert reader.read_at(3, 10) == DATA[3:13]
        assert reader.read_at(len(DATA) - 5, 100) == DATA[-5:]
        assert reader.read_at(len(DATA) + 5, 100) == b""
        assert reader.read_at(3, 0) == b""
        assert b"".join(reader.iter(10, chunk_size=1_000_000)) == DATA[10:]
