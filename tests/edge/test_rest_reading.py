# SPDX-License-Identifier: Apache-2.0
"""HEAD and GET of one image: what is told of it, its data, ranges, conditions (seed checklist, statements 3, 9 to 13).

Threading: single-threaded; over HTTP the server answers in threads of its own.
"""

import contextlib
import email
import hashlib
import os
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support.rest import KERNEL, OCTETS, PUBLIC, MakeRest, Rest

DATA = bytes(range(256)) * 8
ETAG = f'"sha256:{hashlib.sha256(DATA).hexdigest()}"'
STATUSES_WITH_DATA = {200, 206}


def test_head_tells_all_metadata_in_headers(rest: Rest) -> None:
    headers = PUBLIC | {
        "x-image-meta-property-distro": "Ubuntu 10.04 LTS",
        "x-image-meta-disk_format": "qcow2",
        "x-image-meta-min_ram": "512",
    }
    image = rest.add(headers, DATA)
    reply = rest("HEAD", f"/images/{image['id']}")
    assert (reply.status, reply.body) == (200, b"")
    assert {name: value for name, value in reply.headers.items() if name.startswith("x-image-meta-")} == {
        "x-image-meta-uri": f"http://images.example.org/images/{image['id']}",
        "x-image-meta-id": image["id"],
        "x-image-meta-name": "a kernel",
        "x-image-meta-type": "kernel",
        "x-image-meta-size": "2048",
        "x-image-meta-store": "file",
        "x-image-meta-created_at": image["created_at"],
        "x-image-meta-updated_at": image["updated_at"],
        "x-image-meta-deleted_at": "",
        "x-image-meta-status": "available",
        "x-image-meta-is_public": "True",
        "x-image-meta-protected": "False",
        "x-image-meta-owner": "alice",
        "x-image-meta-checksum": ETAG.strip('"'),
        "x-image-meta-disk_format": "qcow2",
        "x-image-meta-min_ram": "512",
        "x-image-meta-property-distro": "Ubuntu 10.04 LTS",
    }


def test_is_public_is_the_word_false_for_a_private_image(rest: Rest) -> None:
    image = rest.add()
    assert rest("HEAD", f"/images/{image['id']}").headers["x-image-meta-is_public"] == "False"


def test_get_gives_the_same_headers_and_the_bytes(rest: Rest) -> None:
    image = rest.add(PUBLIC, DATA)
    head, get = rest("HEAD", f"/images/{image['id']}"), rest("GET", f"/images/{image['id']}")
    assert get.status == 200
    assert get.body == DATA
    assert get.headers["content-type"] == "application/octet-stream"
    assert get.headers["content-length"] == get.headers["x-image-meta-size"] == str(len(DATA))
    assert {k: v for k, v in get.headers.items() if k != "date"} == {
        k: v for k, v in head.headers.items() if k != "date"
    }


def test_an_empty_image_is_given_as_no_bytes(rest: Rest) -> None:
    image = rest.add(KERNEL | OCTETS, b"")
    reply = rest("GET", f"/images/{image['id']}")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "0")


def test_the_uri_leads_to_the_image_and_follows_the_host_header(rest: Rest) -> None:
    image = rest.add()
    reply = rest("HEAD", f"/images/{image['id']}", {"Host": "10.0.0.7:8080"})
    assert reply.headers["x-image-meta-uri"] == f"http://10.0.0.7:8080/images/{image['id']}"
    reply = rest("HEAD", f"/images/{image['id']}", {"Host": "[::1]:9292"})
    assert reply.headers["x-image-meta-uri"] == f"http://[::1]:9292/images/{image['id']}"


def test_a_public_url_comes_before_the_host_header(make_rest: MakeRest) -> None:
    rest = make_rest(public_url="https://images.example.com/store/")
    assert rest.add()["uri"] == "https://images.example.com/store/images/1"


@pytest.mark.parametrize("host", ['a"><script>', "a b", "a/b", "user@host", "a:b", "", "a,b", "[::1", "h\xe9"])
def test_a_host_that_can_be_none_is_refused_and_not_repeated(make_rest: MakeRest, host: str) -> None:
    reply = make_rest()("GET", "/images/", {"Host": host})
    assert reply.status == 400
    assert len(host) < 2 or host.encode() not in reply.body


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_image_answers_with_and_without_a_slash_at_the_end(rest: Rest, slash: str) -> None:
    image = rest.add(body=DATA)
    assert rest("GET", f"/images/{image['id']}{slash}").body == DATA


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("image_id", ["7", "no-such", "%2e%2e", "a%20b", "-x", "x" * 256, "%C3%A9", "a%0Ab", "'", "~"])
def test_an_unknown_id_is_404_whatever_it_looks_like(rest: Rest, method: str, image_id: str) -> None:
    target = f"/images/{image_id}" if rest.send.__class__.__name__ == "OverHttp" else f"/images/{unquote(image_id)}"
    reply = rest(method, target.encode().decode("latin-1"))
    assert reply.status == 404
    assert method == "HEAD" or reply.code == "image-not-found"


def test_a_deleted_image_is_404(rest: Rest) -> None:
    image = rest.add()
    assert rest("DELETE", f"/images/{image['id']}").status == 200
    assert rest("GET", f"/images/{image['id']}").status == 404
    assert rest("HEAD", f"/images/{image['id']}").status == 404


def test_somebody_elses_private_image_is_404(rest: Rest) -> None:
    image = rest.add(user="alice")
    for user in ("bob", None):
        mine, unknown = rest("GET", f"/images/{image['id']}", user=user), rest("GET", "/images/999", user=user)
        assert mine.status == unknown.status == 404
        assert mine.detail.replace(image["id"], "999") == unknown.detail
    assert rest("GET", f"/images/{image['id']}", user="root").body == b"data"


def test_a_public_image_is_there_for_everybody(rest: Rest) -> None:
    image = rest.add(PUBLIC, DATA, user="alice")
    for user in ("bob", None):
        assert rest("GET", f"/images/{image['id']}", user=user).body == DATA


def test_get_of_an_image_without_data_is_404_and_names_its_status(rest: Rest) -> None:
    image = rest.add(body=None)
    reply = rest("GET", f"/images/{image['id']}")
    assert (reply.status, reply.code) == (404, "image-not-found")
    assert "queued" in reply.detail
    head = rest("HEAD", f"/images/{image['id']}")
    assert (head.status, head.headers["x-image-meta-status"]) == (200, "queued")
    assert "etag" not in head.headers


def test_values_that_no_header_can_hold_come_back_exactly(rest: Rest) -> None:
    name, value = "Grüße, 世界 100%", "line\r\nbreak\x00 \x7f and spaces "
    sent = KERNEL | {
        "x-image-meta-name": "Gr%C3%BC%C3%9Fe, %E4%B8%96%E7%95%8C 100%25",
        "x-image-meta-property-note": "line%0D%0Abreak%00 %7F and spaces%20",
    }
    image = rest.add(sent)
    assert (image["name"], image["properties"]) == (name, {"note": value})
    reply = rest("HEAD", f"/images/{image['id']}")
    assert unquote(reply.headers["x-image-meta-name"]) == name
    assert unquote(reply.headers["x-image-meta-property-note"]) == value
    assert (reply.meta["name"], reply.meta["properties"]["note"]) == (name, value)


def test_plain_ascii_travels_as_it_is(rest: Rest) -> None:
    image = rest.add(KERNEL | {"x-image-meta-name": 'Ubuntu 10.04: "5 GB" (+a/b?c=d&e;~)'})
    reply = rest("HEAD", f"/images/{image['id']}")
    assert reply.headers["x-image-meta-name"] == 'Ubuntu 10.04: "5 GB" (+a/b?c=d&e;~)'


def test_raw_utf8_in_a_header_is_understood(rest: Rest) -> None:
    image = rest.add(KERNEL | {"x-image-meta-name": "Häuser".encode().decode("latin-1")})
    assert image["name"] == "Häuser"


# ---- conditions


def test_etag_and_last_modified_are_there(rest: Rest) -> None:
    image = rest.add(body=DATA)
    for method in ("GET", "HEAD"):
        reply = rest(method, f"/images/{image['id']}")
        assert reply.headers["etag"] == ETAG
        assert reply.headers["accept-ranges"] == "bytes"
        assert re.fullmatch(
            r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", reply.headers["last-modified"]
        )


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": ETAG}, 304),
        ({"If-None-Match": f'"other", W/{ETAG}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Match": ETAG}, 200),
        ({"If-Match": f'"other", {ETAG}'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Match": f"W/{ETAG}"}, 412),
        ({"If-Modified-Since": "LAST"}, 304),
        ({"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Unmodified-Since": "LAST"}, 200),
        ({"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 412),
        ({"If-Unmodified-Since": "yesterday"}, 200),
        # The entity tag is the better witness, so the times beside it do not count.
        ({"If-None-Match": '"other"', "If-Modified-Since": "LAST"}, 200),
        ({"If-Match": ETAG, "If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 200),
        ({"If-Match": '"other"', "If-None-Match": ETAG}, 412),
        ({"If-Match": ETAG, "If-None-Match": ETAG}, 304),
    ],
)
def test_conditions_are_evaluated_in_the_order_of_rfc_9110(
    rest: Rest, method: str, headers: dict[str, str], status: int
) -> None:
    image = rest.add(body=DATA)
    last = rest("HEAD", f"/images/{image['id']}").headers["last-modified"]
    sent = {name: value.replace("LAST", last) for name, value in headers.items()}
    reply = rest(method, f"/images/{image['id']}", sent)
    assert reply.status == status
    if status == 304:
        assert reply.body == b""
        assert reply.headers["etag"] == ETAG
    if status == 412 and method == "GET":
        assert reply.code == "precondition-failed"


# ---- ranges


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, 2048),
        ("bytes=-48", 2000, 2048),
        ("bytes=2047-2047", 2047, 2048),
        ("bytes=2000-99999999999999999999999999", 2000, 2048),
        ("bytes=-99999999999", 0, 2048),
        ("BYTES = 0-0", 0, 1),
        ("bytes=9999-, 5-6", 5, 7),
        ("bytes=, 0-0 ,", 0, 1),
    ],
)
def test_one_range_is_given_with_206(rest: Rest, wanted: str, start: int, stop: int) -> None:
    image = rest.add(body=DATA)
    reply = rest("GET", f"/images/{image['id']}", {"Range": wanted})
    assert (reply.status, reply.body) == (206, DATA[start:stop])
    assert reply.headers["content-range"] == f"bytes {start}-{stop - 1}/2048"
    assert reply.headers["content-length"] == str(stop - start)
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["x-image-meta-size"] == "2048"


def test_several_ranges_are_given_as_multipart(rest: Rest) -> None:
    image = rest.add(body=DATA)
    reply = rest("GET", f"/images/{image['id']}", {"Range": "bytes=1000-1099, 0-9,-5"})
    assert reply.status == 206
    assert reply.headers["content-length"] == str(len(reply.body))
    assert "content-range" not in reply.headers
    message = email.message_from_bytes(f"Content-Type: {reply.headers['content-type']}\r\n".encode() + reply.body)
    assert message.get_content_type() == "multipart/byteranges"
    parts: Any = message.get_payload()
    assert [part["Content-Range"] for part in parts] == [
        "bytes 1000-1099/2048",
        "bytes 0-9/2048",
        "bytes 2043-2047/2048",
    ]
    for piece in (DATA[1000:1100], DATA[:10], DATA[-5:]):
        assert b"\r\n\r\n" + piece + b"\r\n--" in reply.body


@pytest.mark.parametrize("wanted", ["bytes=2048-", "bytes=5000-6000", "bytes=-0", "bytes=9999-,8888-"])
def test_a_range_beyond_the_end_is_416_and_tells_the_size(rest: Rest, wanted: str) -> None:
    image = rest.add(body=DATA)
    reply = rest("GET", f"/images/{image['id']}", {"Range": wanted})
    assert (reply.status, reply.code) == (416, "range-not-satisfiable")
    assert reply.headers["content-range"] == "bytes */2048"


def test_any_range_of_an_empty_image_is_416(rest: Rest) -> None:
    image = rest.add(KERNEL | OCTETS, b"")
    assert rest("GET", f"/images/{image['id']}", {"Range": "bytes=0-0"}).status == 416
    assert rest("GET", f"/images/{image['id']}", {"Range": "bytes=-1"}).status == 416


@pytest.mark.parametrize(
    "wanted",
    [
        *("bytes", "bytes=", "bytes=a-b", "bytes=5-1", "bytes=--1", "bytes=1", "lines=0-1", "bytes=0x1-2"),
        *("bytes=1-2-3", "bytes=" + "0-0," * 64 + "1-1", "bytes=0-,0-", "bytes=" + "9" * 99 + "-"),
    ],
)
def test_a_range_that_is_malformed_or_absurd_is_ignored(rest: Rest, wanted: str) -> None:
    image = rest.add(body=DATA)
    reply = rest("GET", f"/images/{image['id']}", {"Range": wanted})
    assert (reply.status, reply.body) == (200, DATA)


@pytest.mark.parametrize(
    ("if_range", "status"),
    [
        (ETAG, 206),
        (f"W/{ETAG}", 200),
        ('"other"', 200),
        ("LAST", 206),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
        ("nonsense", 200),
    ],
)
def test_if_range_gives_the_range_only_of_the_same_data(rest: Rest, if_range: str, status: int) -> None:
    image = rest.add(body=DATA)
    last = rest("HEAD", f"/images/{image['id']}").headers["last-modified"]
    headers = {"Range": "bytes=1-2", "If-Range": if_range.replace("LAST", last)}
    assert rest("GET", f"/images/{image['id']}", headers).status == status


def test_a_condition_that_fails_comes_before_the_range(rest: Rest) -> None:
    image = rest.add(body=DATA)
    headers = {"Range": "bytes=9999-", "If-None-Match": ETAG}
    assert rest("GET", f"/images/{image['id']}", headers).status == 304


def test_head_pays_no_heed_to_a_range(rest: Rest) -> None:
    image = rest.add(body=DATA)
    reply = rest("HEAD", f"/images/{image['id']}", {"Range": "bytes=1-2"})
    assert (reply.status, reply.headers["content-length"]) == (200, "2048")


@pytest.mark.parametrize("wanted", [None, "bytes=0-0", "bytes=0-0,5-5", "bytes=9999-"])
def test_every_answer_lets_go_of_the_data(make_rest: MakeRest, wanted: str | None) -> None:
    rest = make_rest(over="http")
    image = rest.add(body=DATA)
    before = open_files(rest)
    for method in ("GET", "HEAD"):
        rest(method, f"/images/{image['id']}", {} if wanted is None else {"Range": wanted})
    # The server closes a body after its last byte went out, so a moment after the client has it.
    patience = 500
    while open_files(rest) != before and patience:
        time.sleep(0.01)
        patience -= 1
    assert open_files(rest) == before


def open_files(rest: Rest) -> list[str]:
    """Give the files of the store that this process has open."""
    links = []
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(str(Path(entry.path).readlink()))
    return sorted(link for link in links if link.startswith(str(rest.passwords.parent / "images")))
