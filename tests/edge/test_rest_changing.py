# SPDX-License-Identifier: Apache-2.0
"""PUT and DELETE of images: who may, what changes, what may not (seed checklist, statements 24 and 25).

Threading: one test deletes an image while another thread's download is under way.
"""

from datetime import datetime, timedelta
from typing import Any

import pytest

from glancefs.context import RequestContext
from glancefs.images import utc_now
from glancefs.locks import Locks
from tests.support.rawhttp import RawClient
from tests.support.rest import KERNEL, OCTETS, PUBLIC, MakeRest, OverHttp, Rest, basic

PROPERTIES = {"x-image-meta-property-a": "1", "x-image-meta-property-b": "2"}


def shown(rest: Rest, image_id: str = "1") -> dict[str, Any]:
    """Give an image as the detailed list shows it to an admin."""
    images = rest("GET", "/images/detail?is_public=none", user="root").json["images"]
    return next(image for image in images if image["id"] == image_id)


def test_put_changes_the_fields_whose_headers_are_given_and_no_other(rest: Rest) -> None:
    before = rest.add(KERNEL | PROPERTIES | {"x-image-meta-min_disk": "3"})
    reply = rest("PUT", "/images/1", {"x-image-meta-name": "renamed", "x-image-meta-is_public": "1"})
    assert reply.status == 200
    changed = {"name": "renamed", "is_public": True, "updated_at": reply.json["image"]["updated_at"]}
    assert reply.json == {"image": before | changed}
    assert shown(rest) == before | changed


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("type", "ramdisk", "ramdisk"),
        ("disk_format", "raw", "raw"),
        ("container_format", "bare", "bare"),
        ("virtual_size", "7", "7"),
        ("min_disk", "0", "0"),
        ("min_ram", "9", "9"),
        ("protected", "on", True),
        ("is_public", "y", True),
        ("min_disk", "", ""),
        ("disk_format", "", ""),
    ],
)
def test_every_field_that_callers_set_can_be_changed(make_rest: MakeRest, field: str, value: str, told: object) -> None:
    rest = make_rest()
    rest.add(KERNEL | {"x-image-meta-min_disk": "3", "x-image-meta-disk_format": "iso"})
    assert rest("PUT", "/images/1", {f"x-image-meta-{field}": value}).json["image"][field] == told


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("type", ""),
        ("type", "disk"),
        ("is_public", "perhaps"),
        ("min_disk", "-1"),
        ("min_ram", "much"),
        ("disk_format", "floppy"),
        ("container_format", "box"),
        ("virtual_size", "1.5"),
        ("protected", "2"),
        ("purge-properties", "perhaps"),
        ("property-", "v"),
    ],
)
def test_what_a_field_can_not_be_is_400_and_changes_nothing(make_rest: MakeRest, field: str, value: str) -> None:
    rest = make_rest()
    before = rest.add()
    said = {"x-image-meta-property-new": "v", f"x-image-meta-{field}": value}
    assert rest("PUT", "/images/1", said).status == 400
    assert shown(rest) == before


def test_properties_given_are_set_and_others_kept(rest: Rest) -> None:
    rest.add(KERNEL | PROPERTIES)
    reply = rest("PUT", "/images/1", {"x-image-meta-property-B": "3", "x-image-meta-property-c": "4"})
    assert reply.json["image"]["properties"] == {"a": "1", "b": "3", "c": "4"}


@pytest.mark.parametrize("purge", ["x-image-meta-purge-properties", "x-glance-registry-purge-props"])
@pytest.mark.parametrize("path", ["/images/1", "/v1/images/1"])
def test_purging_drops_the_properties_that_are_not_given(rest: Rest, purge: str, path: str) -> None:
    rest.add(KERNEL | PROPERTIES)
    kept = rest("PUT", path, {purge: "false", "x-image-meta-property-c": "4"})
    assert kept.json["image"]["properties"] == {"a": "1", "b": "2", "c": "4"}
    reply = rest("PUT", path, {purge: "true", "x-image-meta-property-b": "3"})
    assert reply.json["image"]["properties"] == {"b": "3"}
    assert rest("PUT", path, {purge: "true"}).json["image"]["properties"] == {}


COMPUTED = {
    "id": "2",
    "uri": "http://images.example.org/images/2",
    "size": "5",
    "checksum": "sha256:" + "0" * 64,
    "store": "swift",
    "status": "queued",
    "created_at": "2010-02-03 09:34:01",
    "updated_at": "2010-02-03 09:34:01",
    "deleted_at": "2010-02-03 09:34:01",
}


@pytest.mark.parametrize(("field", "value"), [*COMPUTED.items(), ("size", "much"), ("created_at", "once"), ("id", "")])
def test_computed_fields_take_no_other_value(make_rest: MakeRest, field: str, value: str) -> None:
    rest = make_rest()
    before = rest.add()
    reply = rest("PUT", "/images/1", {f"x-image-meta-{field}": value, "x-image-meta-name": "renamed"})
    assert (reply.status, reply.code) == (400, "invalid-image")
    assert shown(rest) == before


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_what_was_told_about_an_image_can_be_sent_back(rest: Rest, prefix: str) -> None:
    rest.add(PUBLIC | PROPERTIES | {"x-image-meta-min_ram": "5"})
    before = shown(rest)
    head = rest("HEAD", f"{prefix}/images/1")
    said = {name: value for name, value in head.headers.items() if name.startswith("x-image-meta-")}
    assert rest("PUT", f"{prefix}/images/1", said).status == 200
    assert shown(rest) == before


def test_updated_at_moves_with_the_metadata_and_only_then(make_rest: MakeRest) -> None:
    now = [datetime.fromisoformat("2010-02-03T09:34:01+00:00")]
    rest = make_rest(clock=lambda: now[0])
    assert rest.add()["updated_at"] == "2010-02-03 09:34:01"
    now[0] += timedelta(hours=1)
    assert rest("PUT", "/images/1", {"x-image-meta-name": "a kernel"}).json["image"]["updated_at"].endswith("09:34:01")
    image = rest("PUT", "/images/1", {"x-image-meta-name": "renamed"}).json["image"]
    assert (image["created_at"], image["updated_at"]) == ("2010-02-03 09:34:01", "2010-02-03 10:34:01")


# ---- data into a queued image


@pytest.mark.parametrize("body", [b"data", [b"da", b"ta"]])
def test_put_uploads_into_a_queued_image_and_changes_it_in_one_step(rest: Rest, body: bytes | list[bytes]) -> None:
    rest.add(body=None)
    said = {"x-image-meta-name": "complete", "x-image-meta-size": "4"}
    image = rest("PUT", "/images/1", said, body).json["image"]
    assert (image["name"], image["status"], image["size"]) == ("complete", "available", "4")
    assert rest("GET", "/images/1").body == b"data"


def test_an_empty_body_of_octets_completes_a_queued_image_and_is_nothing_to_others(rest: Rest) -> None:
    rest.add(body=None)
    assert rest("PUT", "/images/1", OCTETS, b"").json["image"]["status"] == "available"
    assert rest("PUT", "/images/1", OCTETS | {"x-image-meta-name": "b"}, b"").json["image"]["name"] == "b"


@pytest.mark.parametrize("said", [{"x-image-meta-size": "5"}, {"x-image-meta-checksum": "sha256:" + "0" * 64}])
@pytest.mark.parametrize("body", [b"data", [b"data"]])
def test_an_upload_that_fails_leaves_the_image_queued_and_unchanged(
    rest: Rest, body: bytes | list[bytes], said: dict[str, str]
) -> None:
    rest.add(body=None)
    reply = rest("PUT", "/images/1", said | {"x-image-meta-name": "no"}, body)
    assert reply.status == 400
    assert (shown(rest)["status"], shown(rest)["name"]) == ("queued", "a kernel")
    assert rest("PUT", "/images/1", {}, b"data").status == 200


def test_a_declared_checksum_of_another_form_is_refused_before_the_upload(rest: Rest) -> None:
    rest.add(body=None)
    reply = rest("PUT", "/images/1", {"x-image-meta-checksum": "md5"}, b"data")
    assert (reply.status, reply.code) == (400, "invalid-image")


# ---- who may


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_stranger_is_403_where_the_image_is_public_and_404_where_it_is_not(rest: Rest, method: str) -> None:
    rest.add(PUBLIC)
    rest.add(KERNEL)
    assert rest(method, "/images/1", user="bob").status == 403
    assert rest(method, "/images/2", user="bob").status == 404
    assert rest(method, "/images/3", user="bob").status == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("image_id", ["1", "2", "3"])
def test_somebody_unknown_is_401_whatever_there_is(rest: Rest, method: str, image_id: str) -> None:
    rest.add(PUBLIC)
    rest.add(KERNEL)
    reply = rest(method, f"/images/{image_id}", user=None)
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == 'Basic realm="glancefs", charset="UTF-8"'


def test_an_admin_may_change_and_give_away_any_image(rest: Rest) -> None:
    rest.add()
    assert rest("PUT", "/images/1", {"x-image-meta-owner": "bob"}, user="alice").status == 403
    assert rest("PUT", "/images/1", {"x-image-meta-owner": "alice"}, user="alice").status == 200
    assert rest("PUT", "/images/1", {"x-image-meta-owner": "bob"}, user="root").json["image"]["owner"] == "bob"
    assert rest("HEAD", "/images/1", user="alice").status == 404


def test_only_an_admin_adds_images_for_others(rest: Rest) -> None:
    assert rest("POST", "/images", KERNEL | {"x-image-meta-owner": "bob"}, b"x").status == 403
    assert rest.add(KERNEL | {"x-image-meta-owner": "alice"})["owner"] == "alice"
    assert rest.add(KERNEL | {"x-image-meta-owner": "bob"}, user="root")["owner"] == "bob"


def test_a_protected_image_refuses_delete_until_it_is_unprotected(rest: Rest) -> None:
    rest.add(KERNEL | {"x-image-meta-protected": "True"})
    for user in ("alice", "root"):
        reply = rest("DELETE", "/images/1", user=user)
        assert (reply.status, reply.code) == (403, "protected-image")
    assert rest("PUT", "/images/1", {"x-image-meta-protected": "False"}).status == 200
    assert rest("DELETE", "/images/1").status == 200


# ---- conditions


def test_put_and_delete_are_carried_out_only_under_their_conditions(rest: Rest) -> None:
    rest.add()
    etag = rest("HEAD", "/images/1").headers["etag"]
    long_ago = "Thu, 01 Jan 1970 00:00:00 GMT"
    for method in ("PUT", "DELETE"):
        for condition in ({"If-Match": '"x"'}, {"If-None-Match": "*"}, {"If-Unmodified-Since": long_ago}):
            reply = rest(method, "/images/1", condition | {"x-image-meta-name": "no"})
            assert (reply.status, reply.code) == (412, "precondition-failed")
    assert shown(rest)["name"] == "a kernel"
    assert rest("PUT", "/images/1", {"If-Match": etag, "x-image-meta-name": "yes"}).status == 200
    assert rest("DELETE", "/images/1", {"If-Match": etag}).status == 200


# ---- statement 25


def test_delete_answers_200_and_then_404(rest: Rest) -> None:
    rest.add()
    reply = rest("DELETE", "/images/1")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "0")
    assert "content-type" not in reply.headers
    assert rest("DELETE", "/images/1").status == 404
    assert rest("PUT", "/images/1", {"x-image-meta-name": "b"}).status == 404


def test_a_deleted_image_shows_in_changes_since_only(rest: Rest) -> None:
    image = rest.add(PUBLIC)
    assert rest("DELETE", "/images/1").status == 200
    assert rest.ids("/images/?is_public=none") == []
    [gone] = rest("GET", f"/images/detail?changes-since={image['created_at'].replace(' ', 'T')}").json["images"]
    assert (gone["id"], gone["status"]) == ("1", "deleted")
    assert gone["deleted_at"] >= gone["created_at"]


def test_a_queued_image_can_be_deleted(rest: Rest) -> None:
    rest.add(body=None)
    assert rest("DELETE", "/images/1").status == 200
    assert rest("PUT", "/images/1", {}, b"data").status == 404


def test_a_download_under_way_finishes_though_the_image_is_deleted(make_rest: MakeRest) -> None:
    rest = make_rest(over="http")
    data = b"0123456789abcdef" * (1 << 20)
    rest.add(body=data)
    assert isinstance(rest.send, OverHttp)
    with RawClient(rest.send.target) as client:
        client.send(f"GET /images/1 HTTP/1.1\r\nHost: x\r\nAuthorization: {basic('alice', 'alice')}\r\n\r\n".encode())
        while client.line():
            pass
        first = client.exactly(1000)
        assert rest("DELETE", "/images/1").status == 200
        assert rest("GET", "/images/1").status == 404
        assert first + client.exactly(len(data) - 1000) == data


def test_what_a_webdav_client_locked_is_not_changed(rest: Rest) -> None:
    rest.add(KERNEL | {"x-image-meta-name": "folder/a"})
    locks = Locks(registry=rest.registry, clock=utc_now)
    alice = RequestContext(user="alice")
    lock = locks.acquire(alice, "folder", guards="alice", is_deep=True)
    for reply in (
        rest("PUT", "/images/1", {"x-image-meta-name": "renamed"}),
        rest("DELETE", "/images/1"),
        rest("POST", "/images/", KERNEL | {"x-image-meta-name": "folder/b"}),
        rest("POST", "/images/", KERNEL | OCTETS | {"x-image-meta-name": "folder/c"}, b"data"),
    ):
        assert (reply.status, reply.json["type"]) == (423, "urn:glancefs:error:locked")
        assert reply.json["detail"].startswith("'folder' is locked by alice until ")
    assert rest("GET", "/images/1").status == 200
    # Of a private image, and of the lock on it, others learn nothing.
    assert rest("DELETE", "/images/1", user="bob").status in {403, 404}
    locks.release(alice, lock.token)
    assert rest("DELETE", "/images/1").status == 200
