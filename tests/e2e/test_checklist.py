# SPDX-License-Identifier: Apache-2.0
"""The checklist of the images API as a black box: a server as it is installed, asked by bare HTTP, by several users.

The numbers are those of the checklist. Every detail has its test in tests/edge; these hold that the whole, from the
command through configuration, users, workers and database to the wire, does what each statement says.
"""

from __future__ import annotations

import base64
import re
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPConnection
from typing import Any

import pytest

from glancefs.client import Client
from glancefs.exception import BadRequest, Duplicate, Forbidden, NotAuthorized, NotFound
from tests.e2e.conftest import USERS
from tests.support.rawhttp import RawClient
from tests.support.servers import Body, Reply, RunningServer

TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
DATA = bytes(range(256)) * 40
CHECKSUM = f"sha256:{sha256(DATA).hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who asks the server; without a name, nobody."""

    server: RunningServer
    name: str | None = None

    def __call__(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Body = None) -> Reply:
        """Ask."""
        said = dict(headers or {})
        if self.name is not None:
            said["Authorization"] = basic(self.name)
        return self.server.ask(method, path, said, body)

    def add(self, body: Body = DATA, **meta: str) -> dict[str, Any]:
        """Add an image, and give what the answer says of it."""
        reply = self("POST", "/images/", fields(**meta), body)
        assert reply.status == 201, reply
        return reply.image

    def ids(self, path: str) -> list[str]:
        """The ids in a list."""
        reply = self("GET", path)
        assert reply.status == 200, reply
        return [image["id"] for image in reply.json["images"]]


def basic(name: str) -> str:
    """What a user says to be known."""
    return "Basic " + base64.b64encode(f"{name}:{USERS[name]}".encode()).decode()


def fields(**meta: str) -> dict[str, str]:
    """Headers of an image; each has a name of its own."""
    said = {"name": f"image {uuid.uuid4()}", "type": "machine"} | meta
    return {f"x-image-meta-{name.replace('__', '-')}": value for name, value in said.items()}


@pytest.fixture
def alice(guarded_server: RunningServer) -> User:
    """Somebody who owns images."""
    return User(server=guarded_server, name="alice")


@pytest.fixture
def bob(guarded_server: RunningServer) -> User:
    """Somebody else."""
    return User(server=guarded_server, name="bob")


@pytest.fixture
def admin(guarded_server: RunningServer) -> User:
    """The admin."""
    return User(server=guarded_server, name="root")


@pytest.fixture
def nobody(guarded_server: RunningServer) -> User:
    """Somebody who did not say who."""
    return User(server=guarded_server)


@pytest.mark.parametrize("path", ["/images", "/images/", "/images/detail", "/images/detail/", "/v1/images", "/"])
def test_01_02_33_routes_answer_with_and_without_a_slash(nobody: User, path: str) -> None:
    assert nobody("GET", path).status == 200


def test_02_other_methods_and_paths_are_refused_in_their_own_ways(alice: User) -> None:
    refused = alice("DELETE", "/images/")
    assert (refused.status, "GET" in refused.headers["allow"]) == (405, True)
    assert alice("GET", "/imagine").status == 404
    assert alice("OPTIONS", "/images/").status in {200, 204}


def test_03_the_uri_of_a_list_leads_to_the_image(alice: User) -> None:
    added = alice.add(is_public="true")
    [image] = [image for image in alice("GET", "/images/").json["images"] if image["id"] == added["id"]]
    assert image["uri"] == f"{alice.server.url}/images/{image['id']}"
    assert alice("GET", image["uri"].removeprefix(alice.server.url)).body == DATA


def test_04_to_07_lists_say_what_they_must(alice: User) -> None:
    added = alice.add(is_public="on", property__OS__Name="debian")
    [brief] = [image for image in alice("GET", "/images/").json["images"] if image["id"] == added["id"]]
    assert set(brief) == {"uri", "id", "name", "type", "size"}
    assert brief["size"] == str(len(DATA))
    [image] = [image for image in alice("GET", "/images/detail").json["images"] if image["id"] == added["id"]]
    assert image == added
    assert image["is_public"] is True
    assert image["deleted_at"] == ""
    assert TIME.fullmatch(image["created_at"])
    assert image["created_at"] == image["updated_at"]
    assert (image["store"], image["status"], image["owner"]) == ("file", "available", "alice")
    assert image["checksum"] == CHECKSUM
    assert image["properties"] == {"os_name": "debian"}


def test_05_private_images_are_listed_to_their_owner_who_asks(
    alice: User, bob: User, nobody: User, admin: User
) -> None:
    private, queued = alice.add()["id"], alice.add(body=None, is_public="true")["id"]
    for user in (alice, bob, nobody):
        assert private not in user.ids("/images/")
        assert (queued in user.ids("/images/")) is (user is alice)
    assert private in alice.ids("/images/?is_public=false")
    for user, sees in ((alice, True), (admin, True), (bob, False), (nobody, False)):
        assert ({private, queued} <= set(user.ids("/images/?is_public=none"))) is sees
        assert (private in user.ids("/images/detail?is_public=none")) is sees


def test_08_lists_are_filtered_sorted_and_paged(alice: User) -> None:
    mark = str(uuid.uuid4())
    added = [alice.add(body=b"x" * size, name=f"{mark}", property__n=str(size))["id"] for size in (3, 1, 2)]
    mine = f"/images/?is_public=none&name={mark}"
    assert alice.ids(f"{mine}&sort_key=size&sort_dir=asc") == [added[1], added[2], added[0]]
    assert alice.ids(f"{mine}&size_min=2&size_max=2") == [added[2]]
    assert alice.ids(f"{mine}&property-n=1") == [added[1]]
    first = alice.ids(f"{mine}&sort_key=size&sort_dir=asc&limit=2")
    assert alice.ids(f"{mine}&sort_key=size&sort_dir=asc&limit=2&marker={first[-1]}") == [added[0]]
    for wrong in ("marker=no-such", "limit=x", "limit=-1", "sort_key=colour", "size_min=big"):
        assert alice("GET", f"{mine}&{wrong}").status == 400


def test_09_to_11_head_and_get_tell_everything(alice: User) -> None:
    image = alice.add(property__distro="Debian 12")
    head, get = (alice(method, f"/images/{image['id']}") for method in ("HEAD", "GET"))
    assert (get.body, head.body) == (DATA, b"")
    for name in ("x-image-meta-size", "content-length"):
        assert head.headers[name] == get.headers[name] == str(len(DATA))
    assert get.headers["content-type"] == "application/octet-stream"
    assert get.headers["x-image-meta-is_public"] == "False"
    assert get.headers["x-image-meta-deleted_at"] == ""
    assert get.headers["x-image-meta-property-distro"] == "Debian 12"
    assert get.headers["etag"] == f'"{CHECKSUM}"'
    part = alice("GET", f"/images/{image['id']}", {"Range": "bytes=100-199"})
    assert (part.status, part.body) == (206, DATA[100:200])
    assert alice("GET", f"/images/{image['id']}", {"Range": "bytes=99999-"}).status == 416
    assert alice("GET", f"/images/{image['id']}", {"If-None-Match": get.headers["etag"]}).status == 304
    assert alice("GET", f"/images/{image['id']}", {"If-Match": '"other"'}).status == 412


def test_12_what_is_not_yours_or_has_no_data_is_404(alice: User, bob: User, nobody: User, admin: User) -> None:
    private, queued = alice.add()["id"], alice.add(body=None)["id"]
    for user in (bob, nobody):
        assert user("GET", f"/images/{private}").status == 404
    assert admin("GET", f"/images/{private}").body == DATA
    told = alice("GET", f"/images/{queued}")
    assert told.status == 404
    assert b"queued" in told.body
    assert alice("HEAD", f"/images/{queued}").headers["x-image-meta-status"] == "queued"


def test_13_any_text_comes_back_exactly(alice: User) -> None:
    text = "Käse 50%\r\n\U0001f427"
    with Client(alice.server.url, user="alice", password=USERS["alice"]) as client:
        image = client.add_image({"name": text, "type": "raw", "properties": {"note": text}}, b"x")
        assert client.get_image_meta(image["id"])["name"] == text
        assert client.get_image_meta(image["id"])["properties"] == {"note": text}
    head = alice("HEAD", f"/images/{image['id']}")
    assert head.headers["x-image-meta-name"] == "K%C3%A4se 50%25%0D%0A%F0%9F%90%A7"


def test_14_15_an_image_needs_a_name_and_a_valid_type(alice: User) -> None:
    reply = alice("POST", "/images/", fields(colour="blue"), DATA)
    assert (reply.status, reply.headers["location"]) == (201, reply.image["uri"])
    refused = alice("POST", "/images/", fields(type="cheese"), DATA)
    assert refused.status == 400
    assert all(word in refused.body.decode() for word in ("kernel", "machine", "raw", "ramdisk"))
    assert alice("POST", "/images/", {"x-image-meta-type": "raw"}, DATA).status == 400


def test_16_an_id_is_taken_for_ever_and_one_of_many_wins(alice: User, bob: User) -> None:
    image_id = f"own-{uuid.uuid4()}"
    together = threading.Barrier(8)

    def race(user: User) -> int:
        together.wait()
        return user("POST", "/images/", fields(id=image_id), DATA).status

    with ThreadPoolExecutor(8) as racers:
        statuses = sorted(racers.map(race, [alice, bob] * 4))
    assert statuses == [201] + 7 * [409]
    winner = alice if alice("HEAD", f"/images/{image_id}").status == 200 else bob
    assert winner("DELETE", f"/images/{image_id}").status == 200
    assert alice("POST", "/images/", fields(id=image_id), DATA).status == 409
    assert alice("POST", "/images/", fields(id="../x"), DATA).status == 400
    assert alice.add()["id"].isdigit()


def test_17_18_stores_and_sizes_are_checked(alice: User) -> None:
    assert alice("POST", "/images/", fields(store="swift"), DATA).status == 400
    assert alice.add(store="file")["store"] == "file"
    assert alice.add(size=str(len(DATA)))["size"] == str(len(DATA))
    for size in ("1", "99999", "-1", "many"):
        assert alice("POST", "/images/", fields(size=size), DATA).status == 400


@pytest.mark.parametrize(("word", "means"), [("on", True), ("1", True), ("TRUE", True), ("off", False), ("", False)])
def test_19_words_for_public(alice: User, nobody: User, word: str, *, means: bool) -> None:
    image = alice.add(is_public=word)
    assert image["is_public"] is means
    assert nobody("GET", f"/images/{image['id']}").status == (200 if means else 404)


def test_19_other_words_are_refused(alice: User) -> None:
    assert alice("POST", "/images/", fields(is_public="perhaps"), DATA).status == 400


def test_20_21_properties_and_the_size_of_headers(alice: User) -> None:
    assert alice("POST", "/images/", fields(property__a__b="1", property__a_b="2"), DATA).status == 400
    many = {f"property__key{number}": "x" for number in range(100)}
    reply = alice("POST", "/images/", fields(**many), DATA)
    assert len(reply.image["properties"]) == 100
    assert alice("POST", "/images/", fields(property__long="x" * 8192), DATA).status == 431


def test_22_23_queued_images_get_their_data_once(alice: User) -> None:
    image = alice.add(body=None)
    assert image["status"] == "queued"
    uploaded = alice("PUT", f"/images/{image['id']}", {"Content-Type": "application/octet-stream"}, DATA)
    assert (uploaded.status, uploaded.image["status"]) == (200, "available")
    assert alice("PUT", f"/images/{image['id']}", {"Content-Type": "application/octet-stream"}, DATA).status == 409
    empty = alice("POST", "/images/", fields() | {"Content-Type": "application/octet-stream"}, b"")
    assert (empty.image["status"], empty.image["size"]) == ("available", "0")
    assert alice.add(body=iter([DATA[:100], DATA[100:]]))["checksum"] == CHECKSUM


@pytest.mark.parametrize(
    ("name", "meta", "status"),
    [(None, {}, 401), ("alice", {"type": "cheese"}, 400), ("alice", {"store": "swift"}, 400), ("alice", {}, 100)],
)
def test_22_refusals_come_before_the_body(
    guarded_server: RunningServer, name: str | None, meta: Mapping[str, str], status: int
) -> None:
    headers = fields(**meta) | {"Host": "x", "Expect": "100-continue", "Content-Length": "10"}
    if name:
        headers["Authorization"] = basic(name)
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    with RawClient((guarded_server.host, guarded_server.port)) as client:
        assert client.ask(f"POST /images/ HTTP/1.1\r\n{lines}\r\n".encode()).status == status


def test_24_metadata_change_by_who_may(alice: User, bob: User, admin: User) -> None:
    image = alice.add(is_public="true", property__kept="1", protected="true")
    path = f"/images/{image['id']}"
    assert bob("PUT", path, {"x-image-meta-name": "mine"}).status == 403
    changed = alice("PUT", path, {"x-image-meta-name": "renamed", "x-image-meta-property-more": "2"})
    assert (changed.status, changed.image["name"]) == (200, "renamed")
    assert changed.image["properties"] == {"kept": "1", "more": "2"}
    purged = alice("PUT", path, {"x-image-meta-purge-properties": "true", "x-image-meta-property-only": "3"})
    assert purged.image["properties"] == {"only": "3"}
    assert alice("PUT", path, {"x-image-meta-size": "7"}).status == 400
    assert alice("DELETE", path).status == 403
    assert admin("PUT", path, {"x-image-meta-protected": "false", "x-image-meta-is_public": "false"}).status == 200
    assert bob("PUT", path, {"x-image-meta-name": "mine"}).status == 404
    assert alice("DELETE", path).status == 200


def test_25_deleted_images_are_gone_and_remembered(alice: User) -> None:
    image = alice.add()
    path = f"/images/{image['id']}"
    connection = HTTPConnection(alice.server.host, alice.server.port)
    connection.request("GET", path, headers={"Authorization": basic("alice")})
    under_way = connection.getresponse()
    assert alice("DELETE", path).status == 200
    assert under_way.read() == DATA
    connection.close()
    for method in ("DELETE", "GET", "HEAD"):
        assert alice(method, path).status == 404
    since = f"/images/detail?is_public=none&changes-since={image['created_at'].replace(' ', 'T')}"
    [tombstone] = [found for found in alice("GET", since).json["images"] if found["id"] == image["id"]]
    assert tombstone["status"] == "deleted"
    assert TIME.fullmatch(tombstone["deleted_at"])


def test_26_to_29_the_documented_client(guarded_server: RunningServer) -> None:
    host, port = guarded_server.host, guarded_server.port
    with Client(host, port, user="alice", password=USERS["alice"]) as client:
        image = client.add_image({"name": "by client", "type": "kernel", "is_public": True}, iter([DATA, DATA]))
        assert image["id"] in {found["id"] for found in client.get_images()}
        assert image["uri"] in {found["uri"] for found in client.get_images_detailed()}
        meta, chunks = client.get_image(image["uri"])
        assert b"".join(chunks) == DATA + DATA
        assert (meta["size"], meta["is_public"]) == (2 * len(DATA), True)
        with pytest.raises(Duplicate):
            client.add_image({"name": "again", "type": "raw", "id": image["id"]}, b"")
        with pytest.raises(BadRequest):
            client.add_image({"name": "n", "type": "raw", "store": "tape"}, b"x")
        with pytest.raises(BadRequest):
            client.add_image({"name": "n", "type": "raw", "size": 5}, b"x")
        with Client(host, port) as stranger, pytest.raises(NotAuthorized):
            stranger.delete_image(image["id"])
        with Client(host, port, user="bob", password=USERS["bob"]) as other, pytest.raises(Forbidden):
            other.delete_image(image["id"])
        client.delete_image(image["uri"])
        with pytest.raises(NotFound):
            client.get_image_meta(image["id"])


def test_32_the_first_versioned_api_speaks_in_its_own_way(alice: User) -> None:
    headers = {"x-image-meta-name": "my%20disk", "x-image-meta-container_format": "aki"}
    image = alice("POST", "/v1/images", headers, DATA).image
    assert (image["name"], image["status"], image["size"]) == ("my disk", "active", len(DATA))
    assert "T" in image["created_at"]
    assert "checksum" not in image
    assert image["id"] in {found["id"] for found in alice("GET", "/v1/images/detail").json["images"]}
    assert alice("HEAD", f"/images/{image['id']}").headers["x-image-meta-type"] == "kernel"


def test_wrong_passwords_and_strangers_are_told_how_to_be_known(guarded_server: RunningServer) -> None:
    wrong = "Basic " + base64.b64encode(b"alice:wrong").decode()
    for headers in ({"Authorization": wrong}, {}):
        refused = guarded_server.ask("POST", "/images/", fields() | headers, DATA)
        assert refused.status == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")


def test_the_server_tells_how_it_is(nobody: User, admin: User) -> None:
    assert nobody("GET", "/healthcheck").status == 200
    assert nobody("GET", "/metrics").status == 401
    assert b"glancefs" in admin("GET", "/metrics").body
