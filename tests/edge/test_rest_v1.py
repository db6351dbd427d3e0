# SPDX-License-Identifier: Apache-2.0
"""The images API under /v1/: in what it differs (seed checklist, statement 32).

Threading: single-threaded; over HTTP the server answers in threads of its own.
"""

import pytest

from tests.support.rest import KERNEL, OCTETS, PUBLIC, Rest

NAMED = {"x-image-meta-name": "an image"}


def test_lists_hold_all_that_the_caller_may_see(rest: Rest) -> None:
    rest.add(PUBLIC, user="alice")
    rest.add(KERNEL, user="alice")
    rest.add(KERNEL, user="bob")
    for path in ("/v1/images", "/v1/images/", "/v1/images/detail", "/v1/images/detail/"):
        assert rest.ids(path, user="alice") == ["2", "1"]
        assert rest.ids(path, user=None) == ["1"]
        assert rest.ids(f"{path}?is_public=True", user="alice") == ["1"]
        assert rest.ids(f"{path}?is_public=None", user="alice") == ["2", "1"]


def test_sizes_are_integers_times_have_a_t_and_available_is_active(rest: Rest) -> None:
    image = rest.add(PUBLIC | {"x-image-meta-virtual_size": "7"}, b"12345")
    [told] = rest("GET", "/v1/images/detail").json["images"]
    assert (told["size"], told["virtual_size"], told["min_disk"], told["min_ram"]) == (5, 7, 0, 0)
    assert told["status"] == "active"
    assert told["created_at"] == told["updated_at"] == image["created_at"].replace(" ", "T")
    assert told["deleted_at"] == ""
    assert told["uri"] == "http://images.example.org/v1/images/1"
    [brief] = rest("GET", "/v1/images").json["images"]
    assert brief["size"] == 5


def test_there_is_no_checksum(rest: Rest) -> None:
    rest.add(PUBLIC)
    assert "checksum" not in rest("GET", "/v1/images/detail").json["images"][0]
    assert "x-image-meta-checksum" not in rest("HEAD", "/v1/images/1").headers
    assert "x-image-meta-checksum" not in rest("GET", "/v1/images/1").headers


def test_headers_of_an_image(rest: Rest) -> None:
    rest.add(PUBLIC, b"12345")
    headers = rest("HEAD", "/v1/images/1").headers
    assert headers["x-image-meta-status"] == "active"
    assert headers["x-image-meta-size"] == headers["content-length"] == "5"
    assert headers["x-image-meta-created_at"][10] == "T"
    assert headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("said", "image_type"),
    [
        ({"container_format": "aki", "disk_format": "aki"}, "kernel"),
        ({"container_format": "ari"}, "ramdisk"),
        ({"container_format": "bare", "disk_format": "qcow2"}, "machine"),
        ({"disk_format": "raw"}, "machine"),
        ({"container_format": "bare"}, "raw"),
        ({}, "raw"),
        ({"type": "kernel", "disk_format": "qcow2"}, "kernel"),
    ],
)
def test_a_missing_type_follows_from_the_formats(rest: Rest, said: dict[str, str], image_type: str) -> None:
    headers = NAMED | {f"x-image-meta-{name}": value for name, value in said.items()}
    assert rest("POST", "/v1/images", headers, b"x").json["image"]["type"] == image_type


def test_values_and_keys_come_percent_encoded(rest: Rest) -> None:
    said = {
        "x-image-meta-name": "my%20caf%C3%A9",
        "x-image-meta-property-os%20version": "10%2C04",
        "x-image-meta-is_public": "None",
    }
    image = rest("POST", "/v1/images", said, b"x").json["image"]
    assert (image["name"], image["properties"]) == ("my café", {"os_version": "10,04"})
    assert image["is_public"] is False
    assert rest("HEAD", "/v1/images/1").headers["x-image-meta-name"] == "my caf%C3%A9"


def test_a_declared_empty_body_is_none_whatever_its_type(rest: Rest) -> None:
    assert rest("POST", "/v1/images", NAMED | OCTETS, b"").json["image"]["status"] == "queued"
    sized = NAMED | OCTETS | {"x-image-meta-size": "10"}
    assert rest("POST", "/v1/images", sized, b"").json["image"] | {"status": "queued", "size": 10} == rest(
        "GET", "/v1/images/detail?limit=1&sort_key=id&sort_dir=desc"
    ).json["images"][0] | {"status": "queued", "size": 10}
    assert rest("PUT", "/v1/images/1", OCTETS | {"x-image-meta-name": "b"}, b"").json["image"]["status"] == "queued"
    assert rest("PUT", "/v1/images/1", OCTETS, [b"da", b"ta"]).json["image"]["status"] == "active"
    empty = NAMED | OCTETS | {"x-image-meta-size": "0"}
    assert rest("POST", "/v1/images", empty, b"").json["image"]["status"] == "active"


def test_status_is_filtered_by_the_word_active(rest: Rest) -> None:
    rest.add(PUBLIC)
    rest.add(PUBLIC, None)
    assert rest.ids("/v1/images?status=active") == ["1"]
    assert rest.ids("/v1/images?status=queued") == ["2"]


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("header", ["x-image-meta-location", "x-glance-api-copy-from"])
def test_data_from_elsewhere_are_refused_and_not_forgotten(rest: Rest, method: str, header: str) -> None:
    rest.add(KERNEL, None)
    target = "/v1/images" if method == "POST" else "/v1/images/1"
    assert rest(method, target, NAMED | {header: "http://example.org/x"}).status == 400


def test_delete_answers_nothing_that_calls_itself_json(rest: Rest) -> None:
    rest.add()
    reply = rest("DELETE", "/v1/images/1")
    assert (reply.status, reply.body) == (200, b"")
    assert "content-type" not in reply.headers


def test_errors_are_text_to_clients_that_take_anything(rest: Rest) -> None:
    for accept in ({}, {"Accept": "*/*"}):
        reply = rest("GET", "/v1/images/7", accept)
        assert reply.status == 404
        assert reply.headers["content-type"].startswith("text/plain")
        assert reply.body == b"There is no image '7'.\n"
    assert rest("GET", "/v1/images/7", {"Accept": "application/json"}).code == "image-not-found"


@pytest.mark.parametrize("path", ["/versions", "/v1", "/v1/"])
def test_versions_are_listed_for_those_who_look_for_them(rest: Rest, path: str) -> None:
    versions = rest("GET", path, user=None).json["versions"]
    assert [version["id"] for version in versions] == ["v1.1", "v1.0"]
    assert versions[0]["links"] == [{"rel": "self", "href": "http://images.example.org/v1/"}]


def test_images_have_no_members(rest: Rest) -> None:
    rest.add()
    assert rest("GET", "/v1/images/1/members").json == {"members": []}
    assert rest("GET", "/v1/shared-images/bob").json == {"shared_images": []}
    assert rest("GET", "/v1/images/1/members", user="bob").status == 404
    assert rest("PUT", "/v1/images/1/members", {}, b"{}").status == 405
    assert rest("GET", "/images/1/members").status == 404
