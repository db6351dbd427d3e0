# SPDX-License-Identifier: Apache-2.0
"""What other WebDAV servers get wrong where no conformance suite looks: each trap has its test, over real sockets."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from glancefs.errors import StoreUnavailable
from glancefs.staging.shared import SharedFiles
from tests.support.dav import Dav, DavMaker, proppatch
from tests.support.rest import basic

AUTH = f"Authorization: {basic('alice', 'alice')}\r\nHost: x\r\n".encode()
NS = "{urn:example}"


def request(line: str, *headers: str) -> bytes:
    """The head of a request of alice's, with whatever else is said."""
    said = "".join(f"{header}\r\n" for header in headers).encode()
    return f"{line} HTTP/1.1\r\n".encode() + AUTH + said + b"\r\n"


def test_a_short_body_leaves_nothing(dav: Dav, folder: str) -> None:
    with dav.connect() as client:
        client.send(request(f"PUT /dav{folder}/new", "Content-Length: 1000") + b"x" * 400)
        client.finish()
        assert client.answer().status == 400
    assert dav.names(f"{folder}/") == []


def test_a_short_body_leaves_what_was_there(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/old", b"before")
    with dav.connect() as client:
        client.send(request(f"PUT /dav{folder}/old", "Content-Length: 1000") + b"x" * 400)
        client.finish()
        assert client.answer().status == 400
    assert dav.read(f"{folder}/old") == b"before"


def test_a_chunked_body_that_is_cut_leaves_nothing(dav: Dav, folder: str) -> None:
    with dav.connect() as client:
        client.send(request(f"PUT /dav{folder}/.new", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n")
        client.finish()
        assert client.answer().status == 400
    assert dav.names(f"{folder}/") == []


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
@pytest.mark.parametrize("name", ["q;z", "q%3Fz", "q%3Bz"])
def test_a_destination_is_split_before_it_is_unquoted(dav: Dav, folder: str, method: str, name: str) -> None:
    dav.put(f"{folder}/q", b"stays")
    dav.put(f"{folder}/source", b"moved")
    said = {"Destination": f"{dav.url}{folder}/{name}"}
    assert dav(method, f"{folder}/source", said).status == 201
    assert dav.read(f"{folder}/q") == b"stays"
    assert dav.read(f"{folder}/{name}") == b"moved"


@pytest.mark.parametrize("tail", ["?z", "#z", "%", "%zz", "%2Fz"])
def test_a_destination_that_could_be_read_differently_is_refused(dav: Dav, folder: str, tail: str) -> None:
    dav.put(f"{folder}/q", b"stays")
    dav.put(f"{folder}/source", b"stays too")
    said = {"Destination": f"{dav.url}{folder}/q{tail}"}
    assert dav("COPY", f"{folder}/source", said).status == 400
    assert dav.names(f"{folder}/") == ["q", "source"]
    assert dav.read(f"{folder}/q") == b"stays"


def test_a_new_file_is_seen_when_it_is_complete(dav: Dav, folder: str) -> None:
    with dav.connect() as client:
        client.send(request(f"PUT /dav{folder}/slow", "Content-Length: 4", "Expect: 100-continue"))
        assert client.answer().status == 100
        client.send(b"da")
        assert dav.names(f"{folder}/") == []
        client.send(b"ta")
        assert client.answer().status == 201
    assert dav.read(f"{folder}/slow") == b"data"


def test_two_uploads_to_one_path_do_not_mix_and_the_last_one_stays(dav: Dav, folder: str) -> None:
    with dav.connect() as first, dav.connect() as second:
        for client in (first, second):
            client.send(request(f"PUT /dav{folder}/both", "Content-Length: 200000", "Expect: 100-continue"))
            assert client.answer().status == 100
        for client, letter in ((first, b"a"), (second, b"b"), (first, b"a"), (second, b"b")):
            client.send(letter * 100_000)
        assert first.answer().status == 201
        assert second.answer().status == 201
    assert len(dav.names(f"{folder}/")) == 1
    assert set(dav.read(f"{folder}/both")) in ({ord("a")}, {ord("b")})


def test_a_delete_during_an_upload_does_not_hinder_it(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/file", b"old")
    with dav.connect() as client:
        client.send(request(f"PUT /dav{folder}/file", "Content-Length: 3", "Expect: 100-continue"))
        assert client.answer().status == 100
        assert dav("DELETE", f"{folder}/file").status == 204
        client.send(b"new")
        assert client.answer().status in {201, 204}
    assert dav.read(f"{folder}/file") == b"new"


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": '"x"'},
        {"If-Match": "*"},
        {"If": '(["x"])'},
        {"If": "(<urn:uuid:none>)"},
        {"If": '</dav/nowhere> (["x"])'},
    ],
)
def test_conditions_hold_for_a_file_that_is_not_there(dav: Dav, folder: str, headers: dict[str, str]) -> None:
    assert dav("PUT", f"{folder}/new", headers, b"data").status == 412
    assert dav.names(f"{folder}/") == []


def test_if_none_match_keeps_from_overwriting(dav: Dav, folder: str) -> None:
    assert dav("PUT", f"{folder}/f", {"If-None-Match": "*"}, b"one").status == 201
    assert dav("PUT", f"{folder}/f", {"If-None-Match": "*"}, b"two").status == 412
    assert dav.read(f"{folder}/f") == b"one"


@pytest.mark.parametrize("name", ["f", ".f"])
def test_who_overtakes_an_upload_is_not_overwritten_by_it(dav: Dav, folder: str, name: str) -> None:
    etag = dav.put(f"{folder}/{name}", b"first").headers["etag"]
    for said, path in ((f"If-Match: {etag}", name), ("If-None-Match: *", f"{name}.new")):
        with dav.connect() as client:
            client.send(request(f"PUT /dav{folder}/{path}", "Content-Length: 4", "Expect: 100-continue", said))
            assert client.answer().status == 100
            dav.put(f"{folder}/{path}", b"overtook")
            client.send(b"late")
            assert client.answer().status == 412
        assert dav.read(f"{folder}/{path}") == b"overtook"


def test_a_tagged_if_is_held_against_the_resource_that_it_names(dav: Dav, folder: str) -> None:
    etag = dav.put(f"{folder}/f").headers["etag"]
    url = f"{dav.url}{folder}/f"
    assert dav("PUT", f"{folder}/g", {"If": f"<{url}> ([{etag}])"}, b"x").status == 201
    assert dav("PUT", f"{folder}/g", {"If": f'<{url}> (["other"])'}, b"x").status == 412
    assert dav("PUT", f"{folder}/g", {"If": f"<http://elsewhere/dav{folder}/f> ([{etag}])"}, b"x").status == 412


@pytest.mark.parametrize(
    "text", ["", "x", "(", "()", "(<a>", "<a>", "(<a>) <b>", '(["a)', "(Not Not <a>)", "(Not)", "(<a>)" * 300]
)
def test_a_malformed_if_is_refused(dav: Dav, folder: str, text: str) -> None:
    assert dav("PUT", f"{folder}/f", {"If": text}, b"data").status == 400
    assert dav.names(f"{folder}/") == []


def test_an_if_without_spaces_is_read_whole(dav: Dav, folder: str) -> None:
    etag = dav.put(f"{folder}/f").headers["etag"]
    assert dav("PUT", f"{folder}/f", {"If": f'(Not<DAV:no-lock>["other"])([{etag}])'}, b"x").status == 204
    assert dav("PUT", f"{folder}/f", {"If": f"(<DAV:no-lock>[{etag}])"}, b"x").status == 412


def test_a_shallow_copy_takes_no_children(dav: Dav, folder: str) -> None:
    assert dav("MKCOL", f"{folder}/from").status == 201
    dav.put(f"{folder}/from/child")
    said = {"Destination": f"{dav.url}{folder}/to", "Depth": "0"}
    assert dav("COPY", f"{folder}/from/", said).status == 201
    assert dav.names(f"{folder}/to/") == []


def test_propname_names_everything(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    body = b'<D:propfind xmlns:D="DAV:"><D:propname/></D:propfind>'
    names = set(dav("PROPFIND", f"{folder}/f", {"Depth": "0"}, body).statuses)
    assert {"{DAV:}getetag", "{DAV:}lockdiscovery", "{urn:glancefs:image}type"} <= names


def test_allprop_includes_what_is_asked_for_besides(dav: Dav, folder: str) -> None:
    body = (
        b'<D:propfind xmlns:D="DAV:"><D:allprop/><D:include><D:quota-available-bytes/><x xmlns="u"/></D:include>'
        b"</D:propfind>"
    )
    statuses = dav("PROPFIND", f"{folder}/", {"Depth": "0"}, body).statuses
    assert statuses["{DAV:}quota-available-bytes"] == statuses["{DAV:}resourcetype"] == 200
    assert statuses["{u}x"] == 404


@pytest.mark.parametrize(
    "body",
    [
        b'<D:propfind xmlns:D="DAV:"/>',
        b'<D:propfind xmlns:D="DAV:"><D:allprop/><D:propname/></D:propfind>',
        b'<D:other xmlns:D="DAV:"/>',
        b"<D:propfind",
        b"no xml",
        b'<propfind xmlns="DAV:"><prop><b:c xmlns:b=""/></prop></propfind>',
    ],
)
def test_a_propfind_that_asks_for_nothing_is_refused(dav: Dav, folder: str, body: bytes) -> None:
    assert dav("PROPFIND", f"{folder}/", {"Depth": "0"}, body).status == 400


def test_the_entity_tag_is_the_same_everywhere(dav: Dav, folder: str) -> None:
    put = dav.put(f"{folder}/f").headers["etag"]
    assert put == dav("GET", f"{folder}/f").headers["etag"] == dav.prop(f"{folder}/f", "{DAV:}getetag")
    assert put != dav.put(f"{folder}/f", b"dato").headers["etag"]
    assert put == dav.put(f"{folder}/f", b"data").headers["etag"]


@pytest.mark.parametrize(
    ("said", "status", "body"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=5-2", 200, b"0123456789"),
        ("bytes=-0", 416, None),
        ("bytes=99-", 416, None),
        ("items=0-5", 200, b"0123456789"),
        ("abc", 200, b"0123456789"),
    ],
)
def test_ranges_are_what_was_asked_for_or_nothing(
    dav: Dav, folder: str, said: str, status: int, body: bytes | None
) -> None:
    dav.put(f"{folder}/f", b"0123456789")
    reply = dav("GET", f"{folder}/f", {"Range": said})
    assert reply.status == status
    assert body is None or reply.body == body
    if status == 416:
        assert reply.headers["content-range"] == "bytes */10"


def test_several_ranges_come_as_several_parts(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f", b"0123456789")
    reply = dav("GET", f"{folder}/f", {"Range": "bytes=0-1,8-9"})
    assert reply.status == 206
    assert reply.headers["content-type"].startswith("multipart/byteranges")
    assert b"\r\n\r\n01\r\n" in reply.body
    assert b"\r\n\r\n89\r\n" in reply.body


def test_a_part_of_a_file_is_not_taken_for_the_whole(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f", b"whole")
    assert dav("PUT", f"{folder}/f", {"Content-Range": "bytes 0-1/5"}, b"xx").status == 400
    assert dav.read(f"{folder}/f") == b"whole"


def test_a_chunked_xml_body_is_read(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    body = [b'<D:propfind xmlns:D="DAV:">', b"<D:prop><D:getetag/></D:prop></D:propfind>"]
    reply = dav("PROPFIND", f"{folder}/f", {"Depth": "0"}, body)
    assert set(reply.statuses) == {"{DAV:}getetag"}


@pytest.mark.parametrize("headers", [{}, {"Depth": "infinity"}, {"Depth": "Infinity"}])
def test_a_listing_of_everything_is_refused_by_name(dav: Dav, headers: dict[str, str]) -> None:
    reply = dav("PROPFIND", "/", headers)
    assert reply.status == 403
    assert reply.conditions == ["propfind-finite-depth"]


def test_what_goes_wrong_inside_is_told_in_the_log_only(
    dav: Dav, folder: str, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[..., None]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret password=hunter2")

    monkeypatch.setattr(SharedFiles, "find", fail)
    expect_log(r"PROPFIND .* failed")
    reply = dav("PROPFIND", f"{folder}/", {"Depth": "0"})
    assert reply.status == 500
    assert b"hunter2" not in reply.body
    assert b"RuntimeError" not in reply.body
    assert "wsgidav" not in str(reply).lower()


def test_a_store_that_fails_says_when_to_come_back(
    dav: Dav, folder: str, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[..., None]
) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailable("The store failed.")

    monkeypatch.setattr(SharedFiles, "find", fail)
    expect_log("StoreUnavailable")
    reply = dav("GET", f"{folder}/f")
    assert reply.status == 503
    assert reply.headers["retry-after"]


def test_a_name_with_control_characters_breaks_no_listing(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/plain")
    name = f"{folder.strip('/')}/odd\x01\n<&>\ufffe"
    with dav.tree() as tree:
        tree.describe(tree.lookup(f"{folder.strip('/')}/plain"), {"name": name, "property.p": "a\x02b\r"})
    [image] = [image for image in dav.images() if image.name == name]
    reply = dav("PROPFIND", f"{folder}/", {"Depth": "1"})
    assert reply.status == 207
    [(href, props)] = [(href, props) for href, props in reply.entries.items() if href != f"/dav{folder}/"]
    assert props["{urn:glancefs:property}p"].text == "a\ufffdb\r"
    assert props["{urn:glancefs:image}id"].text == image.id
    assert "%01%0A" in href


@pytest.mark.parametrize(
    "path", ["/a%00b", "/a%0Ab", "/a%2Fb", "/%2e%2e/x", "/a/../b", "/./x", "/" + "n" * 256, "/a%ff"]
)
@pytest.mark.parametrize("method", ["PUT", "MKCOL", "GET"])
def test_a_path_that_none_can_have_is_refused(dav: Dav, method: str, path: str) -> None:
    body = b"x" if method == "PUT" else None
    assert dav(method, path, {}, body).status == 400


@pytest.mark.parametrize("path", ["/a%2Fb", "/a%0Ab", "/a/%2e%2e/b", "/%ff", "/" + "n" * 256])
def test_so_is_such_a_destination(dav: Dav, folder: str, path: str) -> None:
    dav.put(f"{folder}/f")
    assert dav("COPY", f"{folder}/f", {"Destination": f"{dav.url}{path}"}).status == 400


def test_an_escaped_escape_is_a_name_of_its_own(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/a%252Fb", b"escaped")
    assert dav.names(f"{folder}/") == ["a%2Fb"]
    assert dav.read(f"{folder}/a%252Fb") == b"escaped"


@pytest.mark.parametrize("said", ["Basic", "Basic x", "Basic !!!", "Basic /w==", "Bearer t", "Digest x"])
def test_malformed_credentials_are_asked_for_again(dav: Dav, said: str) -> None:
    reply = dav("PROPFIND", "/", {"Authorization": said, "Depth": "0"}, user=None)
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith("Basic")


def test_a_depth_does_not_matter_to_a_get(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f", b"data")
    assert dav("GET", f"{folder}/f", {"Depth": "1"}).body == b"data"


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_what_is_new_is_told_from_what_is_replaced(dav: Dav, folder: str, method: str) -> None:
    for name, status in (("first", 201), ("second", 204)):
        dav.put(f"{folder}/{name}", name.encode())
        said = {"Destination": f"{dav.url}{folder}/to"}
        assert dav(method, f"{folder}/{name}", said).status == status
    assert dav.read(f"{folder}/to") == b"second"


def test_a_destination_elsewhere_is_told_from_a_wrong_one(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    for url in ("http://elsewhere.example/dav/x", f"{dav.server.url}/images/x", "/elsewhere"):
        assert dav("COPY", f"{folder}/f", {"Destination": url}).status == 502
    for url in ("", "x", "ftp://host/dav/x", "http:///x", "http://[x/dav/"):
        assert dav("COPY", f"{folder}/f", {"Destination": url}).status == 400
    assert dav("COPY", f"{folder}/f").status == 400
    assert dav("COPY", f"{folder}/f", {"Destination": f"/dav{folder}/g"}).status == 201


def test_properties_are_set_all_or_none(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    wanted = {f"{NS}mine": "x", "{urn:glancefs:property}ours": "y", "{urn:glancefs:image}size": "7"}
    reply = dav("PROPPATCH", f"{folder}/f", {}, proppatch(wanted))
    assert reply.statuses == {
        f"{NS}mine": 424,
        "{urn:glancefs:property}ours": 424,
        "{urn:glancefs:image}size": 403,
    }
    assert dav.prop(f"{folder}/f", f"{NS}mine") is None
    assert dav.prop(f"{folder}/f", "{urn:glancefs:property}ours") is None


def test_what_was_removed_is_seen_nowhere_at_once(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    for method, status in (("DELETE", 204), ("DELETE", 404), ("PROPFIND", 404)):
        assert dav(method, f"{folder}/f", {"Depth": "0"}).status == status


def test_a_file_that_shrank_ends_the_connection(dav: Dav, folder: str, expect_log: Callable[..., None]) -> None:
    dav.put(f"{folder}/f", b"x" * 123_457)
    [file] = [
        file for file in Path(dav.core.config.data).rglob("*") if file.is_file() and file.stat().st_size == 123_457
    ]
    file.chmod(0o600)
    with file.open("r+b") as stream:
        stream.truncate(10)
    expect_log(r"ended \d+ bytes early")
    with dav.connect() as client:
        client.send(request(f"GET /dav{folder}/f"))
        with pytest.raises((EOFError, ConnectionError)):
            client.answer()


def test_every_answer_has_an_end(make_dav: DavMaker) -> None:
    dav = make_dav()
    with dav.connect() as client:
        for line in ("OPTIONS /dav/", "GET /dav/", "GET /dav/none", "HEAD /dav/", "MKCOL /dav/new", "DELETE /dav/new"):
            answer = client.ask(request(line), method=line.split()[0])
            assert not answer.closes


def test_credentials_are_as_good_in_utf_8(dav: Dav) -> None:
    wrong = base64.b64encode("ännchen:ö".encode()).decode()
    assert dav("GET", "/", {"Authorization": f"Basic {wrong}"}, user=None).status == 401
