# SPDX-License-Identifier: Apache-2.0
"""The Python client against a real server: what the seed's documentation shows, and what lies around it.

Threading: none.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glancefs import errors, exception
from glancefs.cli.htpasswd import Htpasswd
from glancefs.client import Client
from tests.support.certificates import self_signed
from tests.support.cli import ServeFolder

DATA = bytes(range(256)) * 20_000
CHECKSUM = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
META = {"name": "Ubuntu 10.10 5G", "type": "machine", "is_public": True, "properties": {"distro": "Ubuntu 10.10"}}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@pytest.fixture
def client(tmp_path: Path, served: ServeFolder) -> Iterator[Client]:
    with Client(served(tmp_path / "data")) as client:
        yield client


def test_the_example_of_the_documentation(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "image.tar.gz"
    file.write_bytes(DATA)
    # Opened as text, as the documentation has it; what is sent are its bytes.
    with file.open(encoding="latin-1") as image:
        new_meta = client.add_image(META, image)
    assert new_meta["id"] == "1"
    (listed,) = client.get_images()
    assert listed == {
        "uri": f"{client.url}/images/1",
        "id": "1",
        "name": "Ubuntu 10.10 5G",
        "type": "machine",
        "size": len(DATA),
    }
    (detailed,) = client.get_images_detailed()
    assert detailed == new_meta
    assert detailed["properties"] == {"distro": "Ubuntu 10.10"}
    meta, image_file = client.get_image(listed["uri"])
    assert b"".join(image_file) == DATA
    assert meta == client.get_image_meta(listed["uri"])


def test_metadata_have_pythons_types(client: Client) -> None:
    client.add_image(META | {"min_ram": 512, "protected": True}, DATA)
    (listed,) = client.get_images_detailed()
    for meta in (client.get_image_meta("1"), listed):
        assert meta["size"] == len(DATA)
        assert meta["is_public"] is True
        assert meta["protected"] is True
        assert meta["min_ram"] == 512
        assert meta.get("min_disk") is None
        assert meta["checksum"] == CHECKSUM
        assert meta["deleted_at"] == ""
        assert datetime.strptime(meta["created_at"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) <= datetime.now(UTC)


@pytest.mark.parametrize(
    "data",
    [
        DATA,
        bytearray(DATA),
        memoryview(DATA),
        io.BytesIO(DATA),
        [DATA[:1000], b"", DATA[1000:]],
        (DATA[at : at + 70_000] for at in range(0, len(DATA), 70_000)),
    ],
    ids=["bytes", "bytearray", "memoryview", "file", "list", "generator"],
)
def test_data_come_from_whatever_gives_bytes(client: Client, data: Any) -> None:
    meta = client.add_image(META, data)
    assert (meta["size"], meta["checksum"], meta["status"]) == (len(DATA), CHECKSUM, "available")


def test_progress_is_told(client: Client) -> None:
    seen: list[int] = []
    client.add_image(META, DATA, progress=seen.append)
    assert sum(seen) == len(DATA)


@pytest.mark.parametrize(
    ("meta", "data", "error"),
    [
        ({"id": "taken"}, DATA, exception.Duplicate),
        ({"id": "taken"}, b"small", exception.Duplicate),
        ({"store": "attic"}, DATA, exception.BadRequest),
        ({"size": 1}, DATA, exception.BadRequest),
        ({"size": len(DATA) + 1}, iter([DATA]), exception.BadRequest),
        ({"type": "floppy"}, b"", exception.BadRequest),
        ({"name": None}, b"", exception.BadRequest),
        ({"checksum": "sha256:" + "0" * 64}, DATA, errors.ChecksumMismatch),
        ({"properties": {"k": "x" * 9000}}, b"", errors.HeadersTooLarge),
    ],
)
def test_refusals_are_raised_as_documented(
    client: Client, meta: dict[str, Any], data: Any, error: type[Exception]
) -> None:
    client.add_image(META | {"id": "taken"}, b"")
    with pytest.raises(error):
        client.add_image(META | meta, data)
    assert len(client.get_images(is_public=None)) == 1


def test_an_image_without_data_is_queued_and_takes_them_later(client: Client) -> None:
    assert client.add_image(META)["status"] == "queued"
    with pytest.raises(exception.NotFound, match="queued"):
        client.get_image("1")
    assert client.update_image("1", image_data=io.BytesIO(DATA))["status"] == "available"
    with pytest.raises(errors.ImmutableImage):
        client.update_image("1", image_data=DATA)


def test_an_empty_image_is_an_image(client: Client) -> None:
    assert client.add_image(META, b"")["status"] == "available"
    assert client.add_image(META, iter([]))["size"] == 0
    meta, chunks = client.get_image("1")
    assert (meta["size"], list(chunks)) == (0, [])


def test_metadata_are_changed_and_unset(client: Client) -> None:
    client.add_image(META | {"disk_format": "qcow2"}, DATA)
    meta = client.update_image("1", {"name": "new", "disk_format": None, "properties": {"Other-Key": "x"}})
    assert (meta["name"], meta["disk_format"]) == ("new", "")
    assert meta["properties"] == {"distro": "Ubuntu 10.10", "other_key": "x"}
    assert client.update_image("1", {"properties": {"a": "b"}}, purge_properties=True)["properties"] == {"a": "b"}
    assert client.update_image("1", purge_properties=True)["properties"] == {}


def test_a_deleted_image_is_gone(client: Client) -> None:
    uri = client.add_image(META, DATA)["uri"]
    client.delete_image(uri)
    for ask in (client.get_image_meta, client.get_image, client.delete_image):
        with pytest.raises(exception.NotFound, match="1"):
            ask(uri)


def test_lists_are_whole_whatever_the_page(client: Client) -> None:
    for number in range(7):
        client.add_image({"name": f"n{number}", "type": "raw", "properties": {"n": str(number)}}, b"x" * number)
    everything: dict[str, Any] = {"is_public": None, "sort_key": "name", "sort_dir": "asc"}
    for page_size in (1, 3, 7, 100):
        names = [image["name"] for image in client.iter_images(page_size=page_size, **everything)]
        assert names == [f"n{number}" for number in range(7)]
    assert [image["name"] for image in client.get_images(limit=2, **everything)] == ["n0", "n1"]
    assert [image["name"] for image in client.get_images(size_min=5, **everything)] == ["n5", "n6"]
    assert [image["name"] for image in client.get_images(properties={"N": "3"}, **everything)] == ["n3"]
    assert [image["name"] for image in client.get_images(name="n4", **everything)] == ["n4"]
    assert client.get_images() == []
    since = datetime(2010, 2, 3, tzinfo=UTC)
    assert len(client.get_images_detailed(is_public=None, changes_since=since)) == 7
    with pytest.raises(exception.BadRequest):
        client.get_images(marker="nothing")


def test_parts_of_an_image_are_read(client: Client) -> None:
    client.add_image(META, DATA)
    assert b"".join(client.get_image("1", start=1000, stop=1010)[1]) == DATA[1000:1010]
    assert b"".join(client.get_image("1", start=len(DATA) - 5)[1]) == DATA[-5:]
    assert b"".join(client.get_image("1", stop=3)[1]) == DATA[:3]
    with pytest.raises(exception.BadRequest):
        client.get_image("1", start=3, stop=3)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=TEXT, value=TEXT)
def test_every_text_comes_back_as_it_was(client: Client, name: str, value: str) -> None:
    added = client.add_image({"name": name, "type": "raw", "properties": {"k": value}}, b"")
    for meta in (added, client.get_image_meta(added["id"])):
        assert (meta["name"], meta["properties"]) == (name, {"k": value})


def test_users_see_their_own_and_what_is_public(tmp_path: Path, served: ServeFolder) -> None:
    file = Htpasswd(path=tmp_path / "data/htpasswd", cost=4)
    for user in ("änn", "bob", "root"):
        file.put(user, f"pässword of {user}"[:50])
    url = served(tmp_path / "data", {"auth.mode": "htpasswd", "auth.admins": ["root"]})
    clients = {user: Client(url, user=user, password=f"pässword of {user}"[:50]) for user in ("änn", "bob", "root")}
    try:
        private = clients["änn"].add_image(META | {"is_public": False}, DATA)["id"]
        public = clients["änn"].add_image(META, DATA)["id"]
        with pytest.raises(exception.NotFound):
            clients["bob"].get_image(private)
        assert b"".join(clients["bob"].get_image(public)[1]) == DATA
        with pytest.raises(exception.Forbidden):
            clients["bob"].delete_image(public)
        with Client(url) as nobody, pytest.raises(exception.NotAuthorized):
            nobody.add_image(META, iter([DATA]))
        with Client(url, user="bob", password="wrong") as wrong, pytest.raises(exception.NotAuthorized):
            wrong.get_images()
        clients["root"].delete_image(private)
    finally:
        for client in clients.values():
            client.close()


def test_a_client_serves_many_threads(client: Client) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            image_id = client.add_image(META | {"id": f"t{number}"}, DATA[: 10_000 * number])["id"]
            assert b"".join(client.get_image(image_id)[1]) == DATA[: 10_000 * number]
            client.delete_image(image_id)
        except BaseException as error:  # noqa: BLE001 - the test raises it again
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert client.get_images() == []


@pytest.mark.needs("openssl")
def test_a_server_with_a_certificate_is_trusted_by_it_alone(tmp_path: Path, served: ServeFolder) -> None:
    pem = self_signed(tmp_path)
    said = {"gateway.tls_cert": str(pem), "gateway.tls_key": str(pem)}
    url = served(tmp_path / "data", said)
    with Client(url) as client, pytest.raises(exception.ServiceUnavailable, match="can't be trusted"):
        client.get_images()
    with Client(url, cacert=pem) as client:
        assert client.add_image(META, iter([DATA]))["checksum"] == CHECKSUM
        with pytest.raises(exception.Duplicate):
            client.add_image(META | {"id": "1"}, DATA)
        assert b"".join(client.get_image("1")[1]) == DATA
