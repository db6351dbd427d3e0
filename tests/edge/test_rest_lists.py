# SPDX-License-Identifier: Apache-2.0
"""Lists of images: what is in them, in which order, in which form (seed checklist, statements 1 to 8).

Threading: single-threaded; over HTTP the server answers in threads of its own.
"""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from gateway.rest.lists import PAGE
from glancefs.errors import RegistryUnavailable
from glancefs.model import Image, ImageStatus, ImageType
from tests.support.rest import KERNEL, PUBLIC, MakeRest, OverWsgi, Rest, wsgi_environ

DETAIL_KEYS = {
    *("uri", "id", "name", "type", "size", "store", "created_at", "updated_at", "deleted_at", "status", "is_public"),
    *("owner", "checksum", "disk_format", "container_format", "virtual_size", "min_disk", "min_ram", "protected"),
    "properties",
}


@pytest.mark.parametrize("path", ["/images", "/images/"])
def test_the_list_has_uri_id_name_type_and_size(rest: Rest, path: str) -> None:
    rest.add(PUBLIC, b"12345")
    reply = rest("GET", path)
    assert reply.headers["content-type"] == "application/json"
    assert reply.json == {
        "images": [
            {
                "uri": "http://images.example.org/images/1",
                "id": "1",
                "name": "a kernel",
                "type": "kernel",
                "size": "5",
            }
        ]
    }


@pytest.mark.parametrize("path", ["/images/detail", "/images/detail/"])
def test_the_detailed_list_has_everything(rest: Rest, path: str) -> None:
    image = rest.add(PUBLIC | {"x-image-meta-property-distro": "Ubuntu 10.04 LTS"}, b"12345")
    assert set(image) == DETAIL_KEYS
    assert rest("GET", path).json == {"images": [image]}
    assert image["is_public"] is True
    assert image["deleted_at"] == ""
    assert image["size"] == "5"


def test_a_uri_from_a_list_leads_straight_to_the_image(rest: Rest) -> None:
    rest.add(PUBLIC, b"12345")
    [image] = rest("GET", "/images/").json["images"]
    assert rest("GET", image["uri"].removeprefix("http://images.example.org")).body == b"12345"


def test_an_empty_list_is_an_empty_list(rest: Rest) -> None:
    assert rest("GET", "/images/").json == {"images": []}
    assert rest("GET", "/images/detail").json == {"images": []}


@pytest.fixture
def peopled(rest: Rest) -> Rest:
    """Give an API with two images of alice's, two of bob's, one of each public, and one queued of alice's, public."""
    rest.add(PUBLIC | {"x-image-meta-id": "alice-public"}, user="alice")
    rest.add(KERNEL | {"x-image-meta-id": "alice-private"}, user="alice")
    rest.add(PUBLIC | {"x-image-meta-id": "bob-public"}, user="bob")
    rest.add(KERNEL | {"x-image-meta-id": "bob-private"}, user="bob")
    rest.add(PUBLIC | {"x-image-meta-id": "alice-queued"}, None, user="alice")
    return rest


PUBLIC_ONES = {"alice-public", "bob-public"}
EVERYTHING = PUBLIC_ONES | {"alice-private", "bob-private", "alice-queued"}


@pytest.mark.parametrize(
    ("query", "user", "expected"),
    [
        ("", None, PUBLIC_ONES),
        ("", "bob", PUBLIC_ONES),
        ("", "alice", PUBLIC_ONES | {"alice-queued"}),
        ("?is_public=true", "bob", PUBLIC_ONES),
        ("?is_public=false", "alice", {"alice-private"}),
        ("?is_public=0", "bob", {"bob-private"}),
        ("?is_public=false", None, set()),
        ("?is_public=none", "alice", PUBLIC_ONES | {"alice-private", "alice-queued"}),
        ("?is_public=None", "bob", PUBLIC_ONES | {"bob-private"}),
        ("?is_public=none", None, PUBLIC_ONES),
        ("?is_public=none", "root", EVERYTHING),
        ("?is_public=false", "root", {"alice-private", "bob-private"}),
    ],
)
def test_a_list_holds_what_the_caller_may_see(peopled: Rest, query: str, user: str | None, expected: set[str]) -> None:
    for path in ("/images/", "/images/detail"):
        assert set(peopled.ids(path + query, user=user)) == expected


# ---- filters, sorting, paging


@pytest.fixture
def stocked(make_rest: MakeRest) -> Rest:
    """Give an API with five public images that differ in everything, added a minute apart."""
    start = datetime.fromisoformat("2010-02-03T09:34:00+00:00")
    now = [start]
    rest = make_rest(clock=lambda: now[0])
    for number, (name, image_type) in enumerate(
        [("e", "kernel"), ("d", "machine"), ("c", "raw"), ("b", "ramdisk"), ("a", "kernel")], start=1
    ):
        now[0] = start + timedelta(minutes=number - 1)
        said = {"x-image-meta-name": name, "x-image-meta-type": image_type, "x-image-meta-is_public": "on"}
        said |= {"x-image-meta-property-number": str(number), "x-image-meta-property-odd": str(number % 2)}
        said |= {"x-image-meta-disk_format": "iso"} if number == 3 else {}
        rest.add(said, b"x" * number * 10)
    return rest


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "54321"),
        ("name=c", "3"),
        ("name=C", ""),
        ("type=kernel", "51"),
        ("status=available", "54321"),
        ("status=queued", ""),
        ("size_min=30", "543"),
        ("size_max=30", "321"),
        ("size_min=20&size_max=40", "432"),
        ("disk_format=iso", "3"),
        ("property-number=2", "2"),
        ("property-odd=1", "531"),
        ("property-ODD=1&property-number=5", "5"),
        ("property-none=1", ""),
        ("store=file", "54321"),
        ("store=swift", ""),
        ("owner=alice", "54321"),
        ("owner=bob", ""),
        ("unknown=1", "54321"),
        ("changes-since=2010-02-03T09:36:00", "543"),
        ("changes-since=2010-02-03%2009:36:00", "543"),
        ("changes-since=2010-02-03T10:36:00%2B01:00", "543"),
        ("changes-since=2010-02-03T10:36:00+01:00", "543"),
        ("changes-since=2010-02-03T09:36:00.9Z", "543"),
        ("changes-since=2010-02-04", ""),
        ("sort_key=name&sort_dir=asc", "54321"),
        ("sort_key=name&sort_dir=desc", "12345"),
        ("sort_key=size&sort_dir=asc", "12345"),
        ("sort_key=id&sort_dir=asc", "12345"),
        ("sort_key=created_at", "54321"),
        ("sort_dir=asc", "12345"),
        ("limit=2", "54"),
        ("limit=2&marker=4", "32"),
        ("marker=2", "1"),
        ("marker=1", ""),
        ("limit=0", ""),
        ("limit=99999", "54321"),
        ("sort_key=name&sort_dir=asc&marker=3&limit=1", "2"),
        ("type=kernel&marker=5", "1"),
    ],
)
def test_filters_sorting_and_paging(stocked: Rest, query: str, expected: str) -> None:
    assert "".join(stocked.ids(f"/images/?{query}")) == expected
    assert "".join(stocked.ids(f"/images/detail?{query}")) == expected
    assert stocked("HEAD", f"/images/?{query}").status == 200


@pytest.mark.parametrize(
    "query",
    [
        *("marker=nobody", "marker=", "marker=a%00b", "limit=-1", "limit=many", "limit=", "limit=1.5"),
        *("size_min=much", "size_max=-1", "size_min=" + "9" * 40, "sort_key=colour", "sort_key=", "sort_dir=up"),
        *("type=disk", "status=active", "status=fine", "is_public=perhaps", "changes-since=once", "changes-since="),
        *("changes-since=99999-01-01", "property-=1", "property-%00=1", "limit=1&limit=2", "name=%FF"),
        "limit=%D9%A5",
    ],
)
def test_a_query_that_means_nothing_is_400(stocked: Rest, query: str) -> None:
    reply = stocked("GET", f"/images/?{query}")
    assert reply.status == 400
    assert reply.code in {"invalid-query", "invalid-image", "invalid-request"}
    assert stocked("HEAD", f"/images/?{query}").status == 400


def test_a_name_is_found_whatever_characters_it_has(rest: Rest) -> None:
    rest.add(PUBLIC | {"x-image-meta-name": "Gr%C3%BC%C3%9Fe %26 100%25"})
    assert rest.ids("/images/?name=Gr%C3%BC%C3%9Fe+%26%20100%25") == ["1"]


def test_a_marker_that_the_caller_may_not_see_is_400(peopled: Rest) -> None:
    assert peopled("GET", "/images/?marker=bob-private", user="alice").status == 400
    assert peopled("GET", "/images/?marker=bob-private", user="root").status == 200


def test_pages_by_marker_are_the_whole_list(stocked: Rest) -> None:
    seen: list[str] = []
    while page := stocked.ids(f"/images/?limit=2&sort_key=name&sort_dir=asc{f'&marker={seen[-1]}' if seen else ''}"):
        seen += page
    assert seen == ["5", "4", "3", "2", "1"]


# ---- long lists


def fill(rest: Rest, count: int) -> None:
    """Put so many public images into the registry."""
    time = datetime.fromisoformat("2010-02-03T09:34:00+00:00")
    image = Image(
        id="",
        name="one of many",
        type=ImageType.RAW,
        status=ImageStatus.AVAILABLE,
        size=0,
        store="file",
        owner="alice",
        is_public=True,
        created_at=time,
        updated_at=time,
    )
    for number in range(count):
        rest.registry.add(replace(image, name=f"number {number}"))


@pytest.mark.parametrize("count", [PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 3])
def test_a_list_without_a_limit_holds_everything(make_shared_rest: MakeRest, count: int) -> None:
    rest = make_shared_rest(over="http")
    fill(rest, count)
    reply = rest("GET", "/images/")
    assert sorted(int(image["id"]) for image in reply.json["images"]) == list(range(1, count + 1))
    assert ("content-length" in reply.headers) == (count < PAGE)
    assert len(rest.ids(f"/images/?limit={PAGE + 1}")) == min(PAGE + 1, count)


def test_a_long_list_comes_in_pieces(make_rest: MakeRest) -> None:
    rest = make_rest()
    fill(rest, 2 * PAGE + 3)
    assert isinstance(rest.send, OverWsgi)
    pieces: Any = rest.send.application(
        wsgi_environ("GET", "/images/", [("Host", "x")], None), lambda *_: lambda _: None
    )
    sizes = [len(piece) for piece in pieces]
    assert len(sizes) == 4
    assert max(sizes) < 200 * PAGE


@pytest.mark.expect_log("the registry broke$")
def test_a_list_that_breaks_off_does_not_look_complete(make_rest: MakeRest, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = make_rest(over="http")
    fill(rest, PAGE + 1)
    find, asked = rest.registry.find, []

    def breaking(query: Any) -> Any:
        asked.append(query)
        if len(asked) > 1:
            message = "the registry broke"
            raise RegistryUnavailable(message)
        return find(query)

    monkeypatch.setattr(rest.registry, "find", breaking)
    with pytest.raises((EOFError, ConnectionError)):
        rest("GET", "/images/")


def test_a_registry_that_does_not_answer_is_503_with_retry_after(
    rest: Rest,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: Any,
) -> None:
    expect_log("RegistryUnavailable")

    def broken(_: object) -> None:
        message = "The registry does not answer."
        raise RegistryUnavailable(message)

    monkeypatch.setattr(rest.registry, "find", broken)
    reply = rest("GET", "/images/")
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "registry-unavailable", "5")
    assert json.loads(reply.body)["title"] == "Service Unavailable"
