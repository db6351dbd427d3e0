# SPDX-License-Identifier: Apache-2.0
"""POST of images: metadata in headers, data in the body, and what is refused (seed checklist, statements 14 to 23).

Threading: one test races requests from several threads on purpose.
"""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glancefs.headers import encode_header_value
from tests.support.rest import KERNEL, OCTETS, MakeRest, Rest

DATA = b"a virtual machine" * 1000


def test_adding_answers_201_with_the_location_and_the_image(rest: Rest) -> None:
    reply = rest("POST", "/images/", KERNEL | {"x-image-meta-property-distro": "Ubuntu 10.10"}, DATA)
    assert reply.status == 201
    assert reply.headers["location"] == "http://images.example.org/images/1"
    image = reply.json["image"]
    assert image.pop("created_at") == image.pop("updated_at")
    assert image == {
        "uri": "http://images.example.org/images/1",
        "id": "1",
        "name": "a kernel",
        "type": "kernel",
        "size": str(len(DATA)),
        "store": "file",
        "deleted_at": "",
        "status": "available",
        "is_public": False,
        "owner": "alice",
        "checksum": "sha256:" + hashlib.sha256(DATA).hexdigest(),
        "disk_format": "",
        "container_format": "",
        "virtual_size": "",
        "min_disk": "",
        "min_ram": "",
        "protected": False,
        "properties": {"distro": "Ubuntu 10.10"},
    }


@pytest.mark.parametrize("path", ["/images", "/images/"])
def test_adding_works_with_and_without_the_slash(rest: Rest, path: str) -> None:
    assert rest("POST", path, KERNEL, b"x").status == 201


def test_every_field_that_may_be_said_is_kept(rest: Rest) -> None:
    said = {
        "name": "all",
        "type": "machine",
        "id": "my-image_1.0",
        "store": "file",
        "size": str(len(DATA)),
        "checksum": "sha256:" + hashlib.sha256(DATA).hexdigest(),
        "is_public": "on",
        "disk_format": "qcow2",
        "container_format": "bare",
        "virtual_size": "5368709120",
        "min_disk": "5",
        "min_ram": "512",
        "protected": "yes",
    }
    image = rest.add({f"x-image-meta-{name}": value for name, value in said.items()}, DATA)
    expected = said | {"is_public": True, "protected": True}
    assert {name: image[name] for name in said} == expected


def test_unknown_fields_are_ignored(rest: Rest) -> None:
    image = rest.add(KERNEL | {"x-image-meta-colour": "blue", "x-image-meta-": "?", "x-image-meta-status": "killed"})
    assert image["status"] == "available"
    assert image["properties"] == {}


# ---- statement 15


@pytest.mark.parametrize("path", ["/images/", "/v1/images"])
@pytest.mark.parametrize(
    "headers", [{"x-image-meta-type": "raw"}, {"x-image-meta-type": "raw", "x-image-meta-name": ""}]
)
def test_a_missing_name_is_refused_by_name(rest: Rest, path: str, headers: dict[str, str]) -> None:
    reply = rest("POST", path, headers | {"Accept": "application/json"}, DATA)
    assert (reply.status, reply.code) == (400, "invalid-image")
    assert "name" in reply.detail
    assert rest.holds_nothing()


def test_names_are_not_unique(rest: Rest) -> None:
    assert rest.add()["id"] != rest.add()["id"]


@pytest.mark.parametrize(
    "said", [{}, {"x-image-meta-type": ""}, {"x-image-meta-type": "Kernel"}, {"x-image-meta-type": "disk"}]
)
def test_a_missing_or_invalid_type_is_refused_with_the_valid_ones(rest: Rest, said: dict[str, str]) -> None:
    reply = rest("POST", "/images/", {"x-image-meta-name": "a"} | said, DATA)
    assert reply.status == 400
    assert all(word in reply.detail for word in ("type", "kernel", "machine", "raw", "ramdisk"))
    assert rest.holds_nothing()


@pytest.mark.parametrize("image_type", ["kernel", "machine", "raw", "ramdisk"])
def test_every_type_is_taken(rest: Rest, image_type: str) -> None:
    assert rest.add(KERNEL | {"x-image-meta-type": image_type})["type"] == image_type


# ---- statement 16


def test_generated_ids_are_whole_numbers_that_are_never_used_again(rest: Rest) -> None:
    assert [rest.add()["id"] for _ in range(3)] == ["1", "2", "3"]
    assert rest("DELETE", "/images/3").status == 200
    assert rest.add()["id"] == "4"


def test_ids_are_uuids_where_the_configuration_says_so(make_rest: MakeRest) -> None:
    image = make_rest(image_ids="uuid").add()
    assert len(image["id"]) == 36
    assert image["id"].count("-") == 4


@pytest.mark.parametrize("image_id", ["a", "0", "A.b-c_d", "x" * 255, "detail.1"])
def test_an_id_that_is_given_is_used(rest: Rest, image_id: str) -> None:
    assert rest.add(KERNEL | {"x-image-meta-id": image_id}, DATA)["id"] == image_id
    assert rest("GET", f"/images/{image_id}").body == DATA


@pytest.mark.parametrize(
    "image_id", ["", "-a", ".a", "_a", "a/b", "a b", "a%00", "x" * 256, "é", "a%2Fb", "a\tb", "..", "detail"]
)
def test_an_id_of_another_form_is_refused(rest: Rest, image_id: str) -> None:
    reply = rest("POST", "/images/", KERNEL | {"x-image-meta-id": image_id}, DATA)
    assert (reply.status, reply.code) == (400, "invalid-image")
    assert rest.holds_nothing()


def test_a_taken_id_is_409_also_where_the_image_is_deleted_or_somebody_elses(rest: Rest) -> None:
    said = KERNEL | {"x-image-meta-id": "mine"}
    rest.add(said, user="alice")
    assert rest("POST", "/images/", said, DATA, user="bob").code == "duplicate"
    assert rest("DELETE", "/images/mine").status == 200
    reply = rest("POST", "/images/", said, DATA)
    assert (reply.status, reply.code) == (409, "duplicate")


def test_of_many_who_want_one_id_exactly_one_wins(make_rest: MakeRest) -> None:
    rest = make_rest(over="http")

    def add(number: int) -> int:
        return rest("POST", "/images/", KERNEL | {"x-image-meta-id": "wanted"}, str(number).encode()).status

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(add, range(16)))
    assert statuses == [201] + [409] * 15


# ---- statement 17


@pytest.mark.parametrize("store", ["swift", "s3", "FILE", "../file", "%00"])
def test_a_store_that_this_node_lacks_is_400_and_nothing_stays_behind(rest: Rest, store: str) -> None:
    reply = rest("POST", "/images/", KERNEL | {"x-image-meta-store": store}, DATA)
    assert (reply.status, reply.code) == (400, "unsupported-store")
    assert rest.holds_nothing()


# ---- statement 18


@pytest.mark.parametrize("body", [DATA, [DATA[:100], DATA[100:]]])
@pytest.mark.parametrize("difference", [-1, 1, 100_000])
def test_a_size_that_the_body_does_not_have_is_400_and_nothing_stays_behind(
    rest: Rest, body: bytes | list[bytes], difference: int
) -> None:
    said = KERNEL | {"x-image-meta-size": str(len(DATA) + difference)}
    reply = rest("POST", "/images/", said, body)
    assert (reply.status, reply.code) == (400, "size-mismatch")
    assert rest.holds_nothing()


@pytest.mark.parametrize("body", [DATA, [DATA[:100], DATA[100:]]])
def test_the_size_of_the_body_is_taken_and_computed_where_it_is_not_said(rest: Rest, body: bytes | list[bytes]) -> None:
    assert rest.add(KERNEL | {"x-image-meta-size": str(len(DATA))}, body)["size"] == str(len(DATA))
    assert rest.add(KERNEL, body)["size"] == str(len(DATA))


@pytest.mark.parametrize("size", ["", "-1", "+5", "5.0", "five", "0x5", "1e3", "\u0665", "9" * 20, str(2**63), "5 5"])
def test_a_size_that_is_no_whole_number_is_400(rest: Rest, size: str) -> None:
    said = KERNEL | {"x-image-meta-size": encode_header_value(size)}
    reply = rest("POST", "/images/", said, DATA)
    assert (reply.status, reply.code) == (400, "invalid-image")
    assert "size" in reply.detail
    assert rest.holds_nothing()


def test_another_checksum_than_the_declared_one_is_400_and_nothing_stays_behind(rest: Rest) -> None:
    reply = rest("POST", "/images/", KERNEL | {"x-image-meta-checksum": "sha256:" + "0" * 64}, DATA)
    assert (reply.status, reply.code) == (400, "checksum-mismatch")
    assert rest.holds_nothing()
    md5 = rest("POST", "/images/", KERNEL | {"x-image-meta-checksum": hashlib.md5(DATA).hexdigest()}, DATA)  # noqa: S324 - as old clients send it
    assert (md5.status, md5.code) == (400, "invalid-image")


# ---- statement 19


@pytest.mark.parametrize("word", ["on", "1", "true", "True", "ON", "yes", "t", "y", "Y"])
def test_words_that_make_an_image_public(make_rest: MakeRest, word: str) -> None:
    rest = make_rest()
    assert rest.add(KERNEL | {"x-image-meta-is_public": word})["is_public"] is True
    assert rest("GET", "/images/1", user=None).body == b"data"


@pytest.mark.parametrize("word", ["off", "0", "false", "FALSE", "no", "f", "n", "", "None"])
def test_words_that_keep_an_image_private(make_rest: MakeRest, word: str) -> None:
    assert make_rest().add(KERNEL | {"x-image-meta-is_public": word})["is_public"] is False


@pytest.mark.parametrize("word", ["2", "maybe", "truee", "-1", "null"])
@pytest.mark.parametrize("field", ["is_public", "protected"])
def test_any_other_word_is_400(make_rest: MakeRest, field: str, word: str) -> None:
    reply = make_rest()("POST", "/images/", KERNEL | {f"x-image-meta-{field}": word}, DATA)
    assert reply.status == 400
    assert field in reply.detail


def test_an_image_is_private_unless_the_configuration_says_otherwise(make_rest: MakeRest) -> None:
    assert make_rest().add()["is_public"] is False
    open_house = make_rest(default_is_public=True)
    assert open_house.add()["is_public"] is True
    assert open_house.add(KERNEL | {"x-image-meta-is_public": "no"})["is_public"] is False


# ---- statement 20


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("x-image-meta-property-Distro", "distro"),
        ("x-image-meta-property-os-version", "os_version"),
        ("X-Image-Meta-Property-A.B", "a_b"),
        ("x-image-meta-property-a_b", "a_b"),
        ("x-image-meta-property-a!b#c$d%e&f'g*h+i^j`k|l~m", "a_b_c_d_e_f_g_h_i_j_k_l_m"),
        ("x-image-meta-property-property-x", "property_x"),
        ("x-image-meta-property--", "_"),
    ],
)
def test_keys_of_properties_are_lower_cased_with_underscores(rest: Rest, header: str, key: str) -> None:
    image = rest.add([*KERNEL.items(), (header, "v")])
    assert image["properties"] == {key: "v"}
    assert rest("HEAD", f"/images/{image['id']}").headers[f"x-image-meta-property-{key}"] == "v"


@pytest.mark.parametrize("names", [("a-b", "a.b"), ("a.b", "a!b"), ("a-b", "a_b"), ("same", "same"), ("Same", "sAME")])
def test_two_headers_that_meet_in_one_key_are_400(rest: Rest, names: tuple[str, str]) -> None:
    headers = [*KERNEL.items(), *((f"x-image-meta-property-{name}", "v") for name in names)]
    assert rest("POST", "/images/", headers, DATA).status == 400
    assert rest.holds_nothing()


def test_two_headers_for_one_field_are_400(rest: Rest) -> None:
    assert rest("POST", "/images/", [*KERNEL.items(), ("x-image-meta-name", "another")], DATA).status == 400


def test_a_property_without_a_key_is_400(rest: Rest) -> None:
    assert rest("POST", "/images/", KERNEL | {"x-image-meta-property-": "v"}, DATA).status == 400


def test_as_many_properties_are_kept_as_the_headers_hold(rest: Rest) -> None:
    properties = {f"p{number}": str(number) for number in range(200)}
    image = rest.add(KERNEL | {f"x-image-meta-property-{key}": value for key, value in properties.items()})
    assert image["properties"] == properties
    assert rest("HEAD", f"/images/{image['id']}").meta["properties"] == properties


@given(value=st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_every_text_survives_the_way_there_and_back(shared_rest: Rest, value: str) -> None:
    sent = KERNEL | {"x-image-meta-property-text": encode_header_value(value)}
    image = shared_rest.add(sent)
    assert image["properties"]["text"] == value
    assert shared_rest("HEAD", f"/images/{image['id']}").meta["properties"]["text"] == value


@pytest.fixture(scope="module")
def shared_rest(make_shared_rest: MakeRest) -> Rest:
    return make_shared_rest()


# ---- statement 21


def test_headers_of_8192_bytes_work_and_one_more_is_431(make_rest: MakeRest) -> None:
    rest = make_rest(over="http")
    others = KERNEL | {"Host": rest.host, "Authorization": "Basic YWxpY2U6YWxpY2U=", "Connection": "close"}
    others |= {"Content-Length": "4"}
    used = sum(len(f"{name}: {value}\r\n") for name, value in others.items())
    name = "x-image-meta-property-filler"
    room = 8192 - used - len(f"{name}: \r\n")
    del others["Connection"]
    full = rest("POST", "/images/", others | {name: "v" * room}, b"data")
    assert full.status == 201, full
    over = rest("POST", "/images/", others | {name: "v" * (room + 1)}, b"data")
    assert (over.status, over.code) == (431, "headers-too-large")
    assert over.headers["connection"] == "close"


# ---- statement 22


def test_no_body_and_no_size_is_a_queued_image(rest: Rest) -> None:
    image = rest.add(body=None)
    assert (image["status"], image["size"], image["checksum"]) == ("queued", "0", "")


def test_a_declared_empty_body_of_another_type_is_no_body(rest: Rest) -> None:
    assert rest.add(KERNEL, b"")["status"] == "queued"


@pytest.mark.parametrize("content_type", ["application/octet-stream", "Application/Octet-Stream; x=y"])
def test_a_declared_empty_body_of_octets_is_an_empty_image(rest: Rest, content_type: str) -> None:
    image = rest.add(KERNEL | {"Content-Type": content_type}, b"")
    assert (image["status"], image["size"]) == ("available", "0")
    assert rest("GET", "/images/1").body == b""


def test_an_empty_chunked_body_is_an_empty_image(rest: Rest) -> None:
    assert rest.add(KERNEL, [])["status"] == "available"


def test_a_size_without_a_body_is_a_promise_that_was_not_kept(rest: Rest) -> None:
    reply = rest("POST", "/images/", KERNEL | {"x-image-meta-size": "5"})
    assert (reply.status, reply.code) == (400, "size-mismatch")
    assert rest.add(KERNEL | {"x-image-meta-size": "0"}, None)["status"] == "available"


def test_a_chunked_body_is_taken(rest: Rest) -> None:
    image = rest.add(KERNEL, [DATA[start : start + 1000] for start in range(0, len(DATA), 1000)])
    assert image["checksum"] == "sha256:" + hashlib.sha256(DATA).hexdigest()
    assert rest("GET", "/images/1").body == DATA


def test_a_form_and_a_piece_of_a_body_are_400(rest: Rest) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert rest("POST", "/images/", KERNEL | form, b"--x--").status == 400
    assert rest("POST", "/images/", KERNEL | {"Content-Range": "bytes 0-3/10"}, b"data").status == 400
    assert rest.holds_nothing()


def test_more_than_the_server_takes_is_413_and_nothing_stays_behind(make_rest: MakeRest) -> None:
    rest = make_rest(over="http", max_upload=1000)
    for body in (b"x" * 1001, [b"x" * 600, b"x" * 600]):
        reply = rest("POST", "/images/", KERNEL, body)
        assert (reply.status, reply.code) == (413, "upload-too-large")
    assert rest.holds_nothing()
    assert rest.add(KERNEL, b"x" * 1000)["size"] == "1000"


REFUSED = [
    ({"x-image-meta-name": "a"}, "alice", 400),
    (KERNEL | {"x-image-meta-id": "taken"}, "alice", 409),
    (KERNEL | {"x-image-meta-store": "swift"}, "alice", 400),
    (KERNEL | {"x-image-meta-size": "1"}, "alice", 400),
    (KERNEL | {"x-image-meta-owner": "bob"}, "alice", 403),
    (KERNEL | {"x-image-meta-checksum": "md5"}, "alice", 400),
    (KERNEL | {"x-image-meta-min_disk": "much"}, "alice", 400),
    (KERNEL | {"x-image-meta-disk_format": "floppy"}, "alice", 400),
    (KERNEL | {"Authorization": "Basic bm9ib2R5Om5vYm9keQ=="}, None, 401),
    (KERNEL, None, 401),
    ({}, None, 401),
    (KERNEL | {"Content-Length": "100000"}, "alice", 413),
]


@pytest.mark.parametrize(("headers", "user", "status"), REFUSED)
def test_what_the_headers_tell_is_refused_before_the_body_is_asked_for(
    make_rest: MakeRest, headers: dict[str, str], user: str | None, status: int
) -> None:
    rest = make_rest(over="http", max_upload=10_000)
    rest.add(KERNEL | {"x-image-meta-id": "taken"})
    # No byte of the body is sent: an answer can come only from a server that does not wait for it.
    reply = rest("POST", "/images/", {"Content-Length": "5000", "Expect": "100-continue"} | headers, user=user)
    assert reply.status == status


def test_a_request_that_expects_100_continue_gets_it_and_then_its_answer(make_rest: MakeRest) -> None:
    rest = make_rest(over="http")
    reply = rest("POST", "/images/", KERNEL | {"Content-Length": "4", "Expect": "100-continue"}, b"data")
    # The data were on their way already, so that nobody needs to be told to send them.
    assert reply.status in {100, 201}
    assert rest("GET", "/images/1").body == b"data"


# ---- statement 23


def test_a_second_upload_is_409(rest: Rest) -> None:
    rest.add()
    reply = rest("PUT", "/images/1", {}, b"other data")
    assert (reply.status, reply.code) == (409, "immutable-image")
    assert rest("GET", "/images/1").body == b"data"


def test_times_are_utc_without_a_zone_and_equal_at_first(rest: Rest) -> None:
    image = rest.add()
    assert image["created_at"] == image["updated_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", image["created_at"])


def test_the_upload_into_a_queued_image_moves_no_time(rest: Rest) -> None:
    queued = rest.add(body=None)
    reply = rest("PUT", "/images/1", OCTETS, DATA)
    assert reply.status == 200
    assert reply.json["image"]["updated_at"] == queued["updated_at"]
    assert reply.json["image"]["status"] == "available"
