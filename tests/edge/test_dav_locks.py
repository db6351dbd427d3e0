# SPDX-License-Identifier: Apache-2.0
"""Locks over WebDAV: what they keep from being changed, and what clients do with them."""

from __future__ import annotations

import pytest

from glancefs.errors import Locked
from tests.support.dav import Dav, lockinfo, propfind, proppatch

NS = "{urn:example}"
DISCOVERY = "{DAV:}lockdiscovery"


def test_a_lock_keeps_others_and_oneself_without_the_token_from_changing(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f", b"locked")
    token = dav.lock(f"{folder}/f")
    for method, body in (
        ("PUT", b"x"),
        ("DELETE", None),
        ("MOVE", None),
        ("PROPPATCH", proppatch({f"{NS}a": "b"})),
        ("PROPPATCH", proppatch({"{urn:glancefs:property}a": "b"})),
    ):
        for user in ("alice", "root"):
            reply = dav(method, f"{folder}/f", {"Destination": f"{dav.url}{folder}/g"}, body, user=user)
            assert reply.status == 423
            assert reply.conditions == ["lock-token-submitted"]
            assert [element.text for element in reply.xml.iter("{DAV:}href")] == [f"/dav{folder}/f"]
    assert dav.read(f"{folder}/f") == b"locked"
    assert dav("PUT", f"{folder}/f", {"If": f"(<{token}>)"}, b"mine").status == 204
    assert dav("PUT", f"{folder}/f", {"If": f"(<{token}>)"}, b"somebody's", user="root").status == 423
    assert dav("DELETE", f"{folder}/f", {"If": f"(<{token}>)"}).status == 204


def test_nothing_is_asked_for_where_a_lock_is_in_the_way(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    dav.lock(f"{folder}/f")
    with dav.connect() as client:
        head = f"PUT /dav{folder}/f HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\nExpect: 100-continue\r\n"
        client.send(f"{head}Authorization: Basic YWxpY2U6YWxpY2U=\r\n\r\n".encode())
        assert client.answer().status == 423


def test_a_lock_on_nothing_makes_an_empty_file(dav: Dav, folder: str) -> None:
    reply = dav("LOCK", f"{folder}/new", {"Timeout": "Second-600", "Depth": "0"}, lockinfo())
    token = reply.headers["lock-token"].strip("<>")
    assert reply.status == 201
    assert dav.read(f"{folder}/new") == b""
    assert dav("PUT", f"{folder}/new", {}, b"x").status == 423
    assert dav("PUT", f"{folder}/new", {"If": f"<{dav.url}{folder}/new> (<{token}>)"}, b"data").status == 204
    assert dav.read(f"{folder}/new") == b"data"
    assert dav("UNLOCK", f"{folder}/new", {"Lock-Token": f"<{token}>"}).status == 204
    assert dav("PUT", f"{folder}/new", {}, b"x").status == 204


@pytest.mark.parametrize("name", ["new", ".new"])
def test_davfs2s_way_to_put_a_file(dav: Dav, folder: str, name: str) -> None:
    url = f"{dav.url}{folder}/{name}"
    token = dav.lock(f"{folder}/{name}", depth="0")
    for data in (b"data", b"again"):
        etag = dav("HEAD", f"{folder}/{name}").headers["etag"]
        said = {"If-Match": etag, "If": f"<{url}> (<{token}>)"}
        reply = dav("PUT", f"{folder}/{name}", said, data)
        assert reply.status == 204
        assert dav("GET", f"{folder}/{name}", {"If-None-Match": reply.headers["etag"]}).status == 304
    assert dav.read(f"{folder}/{name}") == b"again"
    assert dav("UNLOCK", f"{folder}/{name}", {"Lock-Token": f"<{token}>"}).status == 204


def test_so_does_one_on_a_dot_name(dav: Dav, folder: str) -> None:
    token = dav.lock(f"{folder}/.new")
    assert dav.names(f"{folder}/") == [".new"]
    assert dav.images(f"{folder.strip('/')}/.new") == []
    assert dav("PUT", f"{folder}/.new", {"If": f"(<{token}>)"}, b"data").status == 204


def test_explorers_way_to_put_a_file(dav: Dav, folder: str) -> None:
    assert dav("PUT", f"{folder}/f", {}, b"").status == 201
    token = dav.lock(f"{folder}/f", depth="0")
    held = {"If": f"(<{token}>)"}
    assert dav("PUT", f"{folder}/f", held, b"data").status == 204
    times = {
        f"{{urn:schemas-microsoft-com:}}Win32{name}": "Tue, 14 Nov 2023 22:13:20 GMT" for name in ("CreationTime",)
    }
    assert dav("PROPPATCH", f"{folder}/f", held, proppatch(dict(times))).status == 207
    assert dav("UNLOCK", f"{folder}/f", {"Lock-Token": f"<{token}>"}).status == 204
    [image] = dav.images(f"{folder.strip('/')}/f")
    assert image.size == 4


@pytest.mark.parametrize("scopes", [("exclusive", "exclusive"), ("exclusive", "shared"), ("shared", "exclusive")])
def test_a_second_lock_is_refused_by_name(dav: Dav, folder: str, scopes: tuple[str, str]) -> None:
    dav.put(f"{folder}/f")
    dav.lock(f"{folder}/f", scope=scopes[0])
    reply = dav("LOCK", f"{folder}/f", {}, lockinfo(scopes[1]))
    assert reply.status == 423
    assert reply.conditions == ["no-conflicting-lock"]


def test_shared_locks_stand_beside_each_other(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    tokens = [dav.lock(f"{folder}/f", scope="shared") for _ in range(2)]
    reply = dav("PROPFIND", f"{folder}/f", {"Depth": "0"}, propfind(DISCOVERY))
    found = [text for element in reply.xml.iter("{DAV:}href") if (text := element.text or "").startswith("urn:")]
    assert sorted(found) == sorted(tokens)
    assert dav("PUT", f"{folder}/f", {"If": f"(<{tokens[1]}>)"}, b"x").status == 204


def test_a_lock_tells_of_itself(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    token = dav.lock(f"{folder}/", depth="infinity")
    for path in (f"{folder}/", f"{folder}/f"):
        lock = dav("PROPFIND", path, {"Depth": "0"}).entries[f"/dav{path}"][DISCOVERY][0]
        assert lock.findtext("{DAV:}locktoken/{DAV:}href") == token
        assert lock.findtext("{DAV:}lockroot/{DAV:}href") == f"/dav{folder}"
        assert lock.findtext("{DAV:}depth") == "infinity"
        assert lock.findtext("{DAV:}owner/{DAV:}href") == "mailto:a@b"
        assert (lock.findtext("{DAV:}timeout") or "").startswith("Second-")
    listed = dav("PROPFIND", f"{folder}/", {"Depth": "1"}).entries
    assert all(len(props[DISCOVERY]) == 1 for props in listed.values())


def test_a_deep_lock_guards_what_is_in_the_folder_and_what_comes(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    token = dav.lock(f"{folder}/")
    for method, path in (("PUT", "/f"), ("PUT", "/new"), ("MKCOL", "/sub"), ("DELETE", "/f"), ("DELETE", "/")):
        assert dav(method, f"{folder}{path}", {}, b"x" if method == "PUT" else None).status in {423, 207}
    assert dav.names(f"{folder}/") == ["f"]
    held = {"If": f"<{dav.url}{folder}/> (<{token}>)"}
    assert dav("PUT", f"{folder}/new", held, b"x").status == 201
    assert dav("DELETE", f"{folder}/", held).status == 204


def test_a_move_that_a_lock_hinders_removes_nothing(dav: Dav, folder: str) -> None:
    for name in ("from", "to"):
        dav("MKCOL", f"{folder}/{name}")
        dav.put(f"{folder}/{name}/f", name.encode())
    dav.lock(f"{folder}/from/f")
    assert dav("MOVE", f"{folder}/from/", {"Destination": f"{dav.url}{folder}/to/"}).status == 423
    assert dav.read(f"{folder}/to/f") == b"to"
    assert dav.read(f"{folder}/from/f") == b"from"


def test_a_lock_does_not_move_along_and_goes_with_what_it_locked(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    token = dav.lock(f"{folder}/f")
    said = {"Destination": f"{dav.url}{folder}/g", "If": f"(<{token}>)"}
    assert dav("MOVE", f"{folder}/f", said).status == 201
    assert dav("PUT", f"{folder}/g", {}, b"x").status == 204
    assert dav("PUT", f"{folder}/f", {}, b"x").status == 201


def test_a_lock_is_refreshed_by_its_token(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    token = dav.lock(f"{folder}/f")
    reply = dav("LOCK", f"{folder}/f", {"If": f"(<{token}>)", "Timeout": "Second-60"})
    seconds = reply.xml.findtext(f"{DISCOVERY}/{{DAV:}}activelock/{{DAV:}}timeout")
    assert (reply.status, "lock-token" in reply.headers) == (200, False)
    assert int((seconds or "").removeprefix("Second-")) <= 60
    assert dav("LOCK", f"{folder}/f", {}).status == 400
    assert dav("LOCK", f"{folder}/f", {"If": "(<urn:uuid:none>)"}).status == 412


def test_a_lock_is_given_back_by_whose_it_is(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    token = dav.lock(f"{folder}/f")
    for said, status in (({}, 400), ({"Lock-Token": token}, 400), ({"Lock-Token": "<urn:x>"}, 409)):
        assert dav("UNLOCK", f"{folder}/f", said).status == status
    assert dav("UNLOCK", f"{folder}/f", {"Lock-Token": f"<{token}>"}, user="bob").status in {403, 404, 409}
    assert dav("UNLOCK", f"{folder}/f", {"Lock-Token": f"<{token}>"}, user="root").status == 204


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'<D:lockinfo xmlns:D="DAV:"/>', 422),
        (lockinfo("exclusive").replace(b"write", b"read"), 422),
        (lockinfo("odd"), 422),
        (b'<D:other xmlns:D="DAV:"/>', 400),
        (b"no xml", 400),
        (lockinfo().replace(b"mailto:a@b", b"x" * 9000), 400),
    ],
)
def test_a_lock_that_is_none_is_refused(dav: Dav, folder: str, body: bytes, status: int) -> None:
    assert dav("LOCK", f"{folder}/f", {}, body).status == status
    assert dav.names(f"{folder}/") == []


def test_a_lock_where_no_file_can_be(dav: Dav, folder: str) -> None:
    assert dav("LOCK", f"{folder}/none/f", {}, lockinfo()).status == 409


def test_every_process_sees_a_lock(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    dav.lock(f"{folder}/f")
    path = f"{folder.strip('/')}/f"
    with dav.tree() as tree:
        assert len(tree.locks_on(path)) == 1
        with pytest.raises(Locked):
            tree.remove(path)


def test_users_locks_know_nothing_of_each_other(dav: Dav) -> None:
    dav.put("/same", b"alice's", user="alice")
    dav.put("/same", b"bob's", user="bob")
    dav.lock("/same", user="alice")
    assert dav("PUT", "/same", {}, b"new", user="bob").status == 204
    assert dav("PUT", "/same", {}, b"new", user="alice").status == 423
