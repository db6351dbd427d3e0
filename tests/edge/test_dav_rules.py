# SPDX-License-Identifier: Apache-2.0
"""Who may do what over WebDAV, whatever way they try, and requests that are made to harm."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from tests.support.dav import Dav, DavMaker, lockinfo, propfind, proppatch

I = "{urn:glancefs:image}"  # noqa: E741 - as the share calls the namespace
NS = "{urn:example}"
PUBLIC = proppatch({f"{I}is_public": "true"})

BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "xxxxxxxxxx">'
    + b"".join(b'<!ENTITY x%d "%s">' % (n, (b"&x%d;" % (n - 1) if n else b"&x;") * 10) for n in range(9))
    + b']><D:propfind xmlns:D="DAV:"><D:prop><a>&x8;</a></D:prop></D:propfind>'
)
EXTERNAL = (
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    b'<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><b xmlns="u">&x;</b></D:prop></D:set></D:propertyupdate>'
)
DEEP = b'<D:propfind xmlns:D="DAV:">' + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</D:propfind>"


@pytest.fixture
def private(dav: Dav) -> str:
    """A private image of alice's in the root: its path."""
    path = f"/{secrets.token_hex(6)}"
    dav.put(path, b"private")
    return path


@pytest.fixture
def public(dav: Dav) -> str:
    """A public image of alice's in the root: its path."""
    path = f"/{secrets.token_hex(6)}"
    dav.put(path, b"public")
    assert dav("PROPPATCH", path, {}, PUBLIC).status == 207
    return path


@pytest.mark.parametrize("user", [None, "bob"])
def test_somebody_elses_private_image_is_not_there(dav: Dav, private: str, user: str | None) -> None:
    assert private.strip("/") not in dav.names(user=user)
    for method in ("GET", "HEAD", "PROPFIND"):
        assert dav(method, private, {"Depth": "0"}, user=user).status == 404
    [image] = dav.images(private.strip("/"))
    for path in (f"/.glance/by-id/{image.id}", f"/.glance/json/{image.id}.json", f"{private}~{image.id}"):
        assert dav("GET", path, user=user).status == 404
    if user is not None:
        for method in ("DELETE", "MOVE", "COPY", "PROPPATCH"):
            body = PUBLIC if method == "PROPPATCH" else None
            reply = dav(method, private, {"Destination": f"{dav.url}/x"}, body, user=user)
            assert reply.status == 404
    assert dav.read(private) == b"private"


def test_everybody_reads_what_is_public(dav: Dav, public: str) -> None:
    for user in (None, "bob"):
        assert dav.read(public, user=user) == b"public"
        assert public.strip("/") in dav.names(user=user)


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("PUT", b"x"),
        ("DELETE", None),
        ("MOVE", None),
        ("COPY", None),
        ("PROPPATCH", PUBLIC),
        ("MKCOL", None),
        ("LOCK", lockinfo()),
        ("UNLOCK", None),
    ],
)
@pytest.mark.parametrize("path", ["", "/new", "/.new"])
def test_who_is_not_known_changes_nothing(dav: Dav, public: str, method: str, body: bytes | None, path: str) -> None:
    said = {"Destination": f"{dav.url}/y", "Lock-Token": "<urn:x>", "If-Match": '"x"'}
    reply = dav(method, path or public, said, body, user=None)
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith("Basic")
    assert dav.read(public) == b"public"


def test_nothing_is_asked_of_who_is_not_known(dav: Dav) -> None:
    with dav.connect() as client:
        client.send(b"PUT /dav/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\nExpect: 100-continue\r\n\r\n")
        assert client.answer().status == 401


@pytest.mark.parametrize(
    ("method", "body"), [("PUT", b"x"), ("DELETE", None), ("MOVE", None), ("PROPPATCH", PUBLIC), ("LOCK", lockinfo())]
)
def test_only_the_owner_changes_what_is_public(dav: Dav, public: str, method: str, body: bytes | None) -> None:
    reply = dav(method, public, {"Destination": f"{dav.url}/{secrets.token_hex(6)}"}, body, user="bob")
    assert reply.status == 403 or set(reply.statuses.values()) == {403}
    assert dav.read(public) == b"public"


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
@pytest.mark.parametrize("overwrite", ["T", "F"])
def test_nor_is_it_overwritten_from_aside(dav: Dav, public: str, method: str, overwrite: str) -> None:
    own = f"/{secrets.token_hex(6)}"
    dav.put(own, b"mine", user="bob")
    said = {"Destination": f"{dav.url}{public}", "Overwrite": overwrite}
    assert dav(method, own, said, user="bob").status in {403, 412}
    assert dav.read(public) == b"public"
    assert dav.read(own, user="bob") == b"mine"


def test_a_folder_with_others_images_keeps_them(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/a", b"alice's")
    dav("PROPPATCH", f"{folder}/a", {}, PUBLIC)
    dav.put(f"{folder}/b", b"bob's", user="bob")
    dav("PROPPATCH", f"{folder}/b", {}, PUBLIC, user="bob")
    reply = dav("DELETE", f"{folder}/", user="bob")
    assert reply.status == 207
    assert [element.text for element in reply.xml.iter("{DAV:}href")] == [f"/dav{folder}/a"]
    assert dav.names(f"{folder}/") == ["a"]
    assert dav("MOVE", f"{folder}/", {"Destination": f"{dav.url}/moved"}, user="bob").status == 403


def test_an_admin_sees_and_changes_everything(dav: Dav, private: str) -> None:
    assert dav.read(private, user="root") == b"private"
    assert dav("DELETE", private, user="root").status == 204


def test_properties_of_others_folders_are_each_users_own(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/a")
    dav("PROPPATCH", f"{folder}/a", {}, PUBLIC)
    for user in ("alice", "bob"):
        dav("PROPPATCH", f"{folder}/", {}, proppatch({f"{NS}mine": user}), user=user)
    for user in ("alice", "bob"):
        assert dav.prop(f"{folder}/", f"{NS}mine", user=user) == user
    assert dav.prop(f"{folder}/", f"{NS}mine", user=None) is None


def test_who_must_log_in_is_asked_at_once(make_dav: DavMaker) -> None:
    dav = make_dav(gateway__dav_anonymous=False)
    for method in ("GET", "HEAD", "PROPFIND"):
        assert dav(method, "/", {"Depth": "0"}, user=None).status == 401
    assert dav("OPTIONS", "/", user=None).status == 200
    assert dav("PROPFIND", "/", {"Depth": "0"}).status == 207


def test_without_users_everybody_is_the_machines_admin(make_dav: DavMaker) -> None:
    dav = make_dav(users=False)
    assert dav("PUT", "/f", {}, b"data", user=None).status == 201
    assert dav.read("/f", user=None) == b"data"


def test_the_door_can_stay_shut(make_dav: DavMaker) -> None:
    dav = make_dav(gateway__dav=False)
    assert dav("GET", "/").status == 404
    assert "DAV" not in dav.ask("OPTIONS", "/", {}, user=None).headers


# ---- what clients ask before anything else


@pytest.mark.parametrize("target", ["/", "/dav", "/dav/", "/dav/none/at/all"])
def test_everybody_may_ask_what_can_be_done(dav: Dav, target: str) -> None:
    reply = dav.ask("OPTIONS", target, {}, user=None)
    assert reply.status == 200
    assert reply.headers["dav"] == "1, 2"
    assert reply.headers["ms-author-via"] == "DAV"
    assert {"PROPFIND", "LOCK", "MOVE"} <= set(reply.headers["allow"].split(", "))


def test_the_servers_root_is_a_folder_that_holds_the_share(dav: Dav) -> None:
    for depth, hrefs in (("0", ["/"]), ("1", ["/", "/dav/"])):
        reply = dav.ask("PROPFIND", "/", {"Depth": depth}, user=None)
        assert (reply.status, list(reply.entries)) == (207, hrefs)
        assert all(props["{DAV:}resourcetype"][0].tag == "{DAV:}collection" for props in reply.entries.values())
    assert dav.ask("PROPFIND", "/", {"Depth": "0"}, b"no xml", user=None).status == 400
    assert dav.ask("GET", "/", {}, user=None).status == 200


@pytest.mark.parametrize("method", ["POST", "PATCH", "REPORT", "SEARCH", "MKCALENDAR"])
def test_what_can_not_be_done_says_what_can(dav: Dav, method: str) -> None:
    reply = dav(method, "/", {}, b"x" if method in {"POST", "PATCH"} else None)
    assert reply.status == 405
    assert "PROPFIND" in reply.headers["allow"]


# ---- requests that are made to harm


@pytest.mark.parametrize("method", ["PROPFIND", "PROPPATCH", "LOCK"])
@pytest.mark.parametrize("body", [BOMB, EXTERNAL, DEEP, b"\xff\xfe<", b"<a>&#0;</a>", b'<?xml encoding="utf-7"?><a/>'])
def test_harmful_xml_is_refused(dav: Dav, public: str, method: str, body: bytes) -> None:
    reply = dav(method, public, {"Depth": "0"}, body)
    assert reply.status == 400
    assert b"root:" not in reply.body
    assert reply.body.count(b"\n") == 1


@pytest.mark.parametrize("method", ["PROPFIND", "PROPPATCH", "LOCK"])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_xml_has_a_limit(dav: Dav, public: str, method: str, *, is_chunked: bool) -> None:
    value = proppatch({f"{NS}long": "x" * (10 << 20)})
    body = [value[start : start + 65_536] for start in range(0, len(value), 65_536)] if is_chunked else value
    try:
        assert dav(method, public, {"Depth": "0"}, body).status == 413
    except (BrokenPipeError, ConnectionResetError):
        # Whoever goes on sending after the answer is cut.
        assert dav.read(public) == b"public"


def test_properties_that_are_named_have_a_limit(dav: Dav, public: str) -> None:
    names = [f"{NS}n{number}" for number in range(1001)]
    assert dav("PROPFIND", public, {"Depth": "0"}, propfind(*names)).status == 400
    assert dav("PROPPATCH", public, {}, proppatch(dict.fromkeys(names, "x"))).status == 400
    assert dav("PROPFIND", public, {"Depth": "0"}, propfind(*names[:1000])).status == 207


def test_dead_properties_have_a_limit(dav: Dav, public: str, expect_log: Callable[..., None]) -> None:
    expect_log("StoreFull")
    statuses = [
        set(dav("PROPPATCH", public, {}, proppatch({f"{NS}n{part}x{n}": "x" for n in range(100)})).statuses.values())
        if part < 2
        else {dav("PROPPATCH", public, {}, proppatch({f"{NS}more": "x"})).status}
        for part in range(3)
    ]
    assert statuses == [{200}, {200}, {507}]


@pytest.mark.parametrize("said", ["-1", "2", "x", "", "1, 1"])
def test_a_depth_that_is_none_is_refused(dav: Dav, public: str, said: str) -> None:
    assert dav("PROPFIND", public, {"Depth": said}).status == 400
    assert dav("LOCK", public, {"Depth": said}, lockinfo()).status == 400


def test_a_long_name_of_a_property_is_refused(dav: Dav, public: str) -> None:
    name = f"{NS}{'n' * 2000}"
    assert set(dav("PROPPATCH", public, {}, proppatch({name: "x"})).statuses.values()) == {400}


def test_what_is_in_a_page_can_do_nothing(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/%3Cscript%3Ealert(1)%3C%2fscript%3E".replace("%2f", "_"))
    text = dav("GET", f"{folder}/").body.decode()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
