# SPDX-License-Identifier: Apache-2.0
"""What each WebDAV method means for images: what comes of files and folders, and what stays."""

from __future__ import annotations

import hashlib
import io
from base64 import b64encode
from collections.abc import Callable

import pytest

from glancefs.assembly import clear_up
from glancefs.errors import StoreFull
from glancefs.images import Images
from glancefs.model import ImageStatus, ImageType, NewImage
from glancefs.stores.base import Space
from tests.support.dav import Dav, DavMaker, propfind, proppatch

I = "{urn:glancefs:image}"  # noqa: E741 - as the share calls the namespace
P = "{urn:glancefs:property}"
NS = "{urn:example}"
QCOW2 = b"QFI\xfb" + b"\0" * 600


def name_in(folder: str, name: str) -> str:
    """What an image is called that is in a folder."""
    return f"{folder.strip('/')}/{name}"


# ---- PUT


def test_a_put_is_an_image_whose_type_its_first_bytes_tell(dav: Dav, folder: str) -> None:
    reply = dav.put(f"{folder}/disk.qcow2", QCOW2)
    [image] = dav.images(name_in(folder, "disk.qcow2"))
    assert reply.status == 201
    assert (image.type, image.status, image.size) == (ImageType.MACHINE, ImageStatus.AVAILABLE, len(QCOW2))
    assert image.owner == "alice"
    digest = b64encode(hashlib.sha256(QCOW2).digest()).decode()
    assert reply.headers["etag"] == f'"sha256-{digest}"'


def test_a_put_in_chunks_is_the_same(dav: Dav, folder: str) -> None:
    assert dav("PUT", f"{folder}/f", {}, [b"first,", b"second"]).status == 201
    assert dav.read(f"{folder}/f") == b"first,second"


def test_a_put_over_an_image_replaces_it_and_readers_go_on(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f", b"old" * 100_000)
    [old] = dav.images(name_in(folder, "f"))
    dav("PROPPATCH", f"{folder}/f", {}, proppatch({f"{P}distro": "debian", f"{I}is_public": "true"}))
    reader = dav.core.images.open_image(old)
    assert dav.put(f"{folder}/f", b"new").status == 204
    [new] = dav.images(name_in(folder, "f"))
    assert (new.id != old.id, new.is_public, new.properties) == (True, True, {"distro": "debian"})
    with reader:
        assert b"".join(reader.iter()) == b"old" * 100_000


def test_an_empty_put_waits_for_data_and_the_next_one_brings_them(dav: Dav, folder: str) -> None:
    assert dav.put(f"{folder}/f", b"").status == 201
    [queued] = dav.images(name_in(folder, "f"))
    assert queued.status is ImageStatus.QUEUED
    assert dav.read(f"{folder}/f") == b""
    assert dav.put(f"{folder}/f", QCOW2).status == 204
    [image] = dav.images(name_in(folder, "f"))
    assert (image.id, image.status, image.type) == (queued.id, ImageStatus.AVAILABLE, ImageType.MACHINE)


def test_the_time_and_the_checksum_that_a_client_says_are_kept_and_held(dav: Dav, folder: str) -> None:
    sha1 = hashlib.sha1(b"data", usedforsecurity=False).hexdigest()
    reply = dav.put(f"{folder}/f", b"data", X_OC_Mtime="1700000000", OC_Checksum=f"SHA1:{sha1}")
    assert reply.headers["x-oc-mtime"] == "accepted"
    assert dav.prop(f"{folder}/f", "{DAV:}getlastmodified") == "Tue, 14 Nov 2023 22:13:20 GMT"
    for wrong in (f"SHA1:{'0' * 40}", f"MD5:{'0' * 32}", f"SHA256:{'0' * 64}"):
        assert dav("PUT", f"{folder}/g", {"OC-Checksum": wrong}, b"data").status == 400
        assert dav("PUT", f"{folder}/f", {"OC-Checksum": wrong}, b"datb").status == 400
    assert dav.names(f"{folder}/") == ["f"]
    assert dav.read(f"{folder}/f") == b"data"


def test_finders_chunks_are_held_against_the_length_that_it_says(dav: Dav, folder: str) -> None:
    said = {"X-Expected-Entity-Length": "4"}
    assert dav("PUT", f"{folder}/f", said, [b"da", b"ta"]).status == 201
    assert dav("PUT", f"{folder}/g", said, [b"da"]).status == 400
    assert dav.names(f"{folder}/") == ["f"]


@pytest.mark.parametrize(
    ("path", "status"), [("/none/f", 409), ("/f/g", 409), ("/", 405), ("/new/", 405), ("/sub", 409), ("/../f", 400)]
)
def test_a_put_where_no_file_can_be(dav: Dav, folder: str, path: str, status: int) -> None:
    dav.put(f"{folder}/f")
    dav("MKCOL", f"{folder}/sub")
    assert dav("PUT", f"{folder}{path}", {}, b"data").status == status


def test_a_full_store_is_told_before_the_data_are_asked_for(
    dav: Dav, folder: str, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[..., None]
) -> None:
    expect_log("StoreFull")
    monkeypatch.setattr(Images, "space", lambda _: Space(total=100, free=10))
    with dav.connect() as client:
        head = f"PUT /dav{folder}/f HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\nExpect: 100-continue\r\n"
        client.send(f"{head}Authorization: Basic YWxpY2U6YWxpY2U=\r\n\r\n".encode())
        assert client.answer().status == 507


def test_a_store_that_fills_up_meanwhile_leaves_nothing(
    dav: Dav, folder: str, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[..., None]
) -> None:
    expect_log("StoreFull")

    def full(*_: object, **__: object) -> None:
        raise StoreFull("There is no room.")

    monkeypatch.setattr(Images, "add", full)
    assert dav("PUT", f"{folder}/f", {}, b"data").status == 507
    assert dav.names(f"{folder}/") == []


def test_too_much_is_refused(make_dav: DavMaker) -> None:
    dav = make_dav(gateway__max_upload=10)
    assert dav("PUT", "/f", {}, b"x" * 11).status == 413
    assert dav("PUT", "/f", {}, [b"x" * 6, b"x" * 6]).status == 413
    assert dav("PUT", "/.f", {}, [b"x" * 6, b"x" * 6]).status == 413
    assert dav.names() == []


# ---- files that are not yet images


def test_dot_files_are_files_and_become_images_by_a_plain_name(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/.f.Xy12", QCOW2, X_OC_Mtime="1700000000")
    assert dav.images(name_in(folder, ".f.Xy12")) == []
    assert dav.names(f"{folder}/") == [".f.Xy12"]
    assert dav.read(f"{folder}/.f.Xy12") == QCOW2
    said = {"Destination": f"{dav.url}{folder}/f"}
    assert dav("MOVE", f"{folder}/.f.Xy12", said).status == 201
    [image] = dav.images(name_in(folder, "f"))
    assert (image.type, image.size, image.properties) == (ImageType.MACHINE, len(QCOW2), {"mtime": "1700000000"})
    assert dav.names(f"{folder}/") == ["f"]


def test_dot_files_are_replaced_renamed_copied_and_removed(dav: Dav, folder: str) -> None:
    for data, status in ((b"one", 201), (b"two", 204)):
        assert dav("PUT", f"{folder}/._x", {}, data).status == status
    assert dav("MOVE", f"{folder}/._x", {"Destination": f"{dav.url}{folder}/._y"}).status == 201
    assert dav("COPY", f"{folder}/._y", {"Destination": f"{dav.url}{folder}/._z"}).status == 201
    assert dav.read(f"{folder}/._z") == b"two"
    assert dav("DELETE", f"{folder}/._z").status == 204
    assert dav.names(f"{folder}/") == ["._y"]
    assert dav("DELETE", f"{folder}/").status == 204
    with dav.tree() as tree:
        assert not tree._begun.overlay.below(folder.strip("/"))


def test_dot_files_are_their_users_alone_and_on_every_process(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/.DS_Store", b"litter")
    clear_up(dav.core)
    with dav.tree("alice") as tree:
        entry = tree.lookup(name_in(folder, ".DS_Store"))
        assert (entry.staged is not None, entry.size) == (True, 6)
    assert dav("GET", f"{folder}/.DS_Store", user="bob").status == 404
    assert dav("GET", f"{folder}/.DS_Store", user=None).status == 404


def test_folders_move_with_the_dot_files_in_them(dav: Dav, folder: str) -> None:
    dav("MKCOL", f"{folder}/a")
    dav.put(f"{folder}/a/.s", b"staged")
    dav.put(f"{folder}/a/f", b"image")
    assert dav("MOVE", f"{folder}/a", {"Destination": f"{dav.url}{folder}/b"}).status == 201
    assert sorted(dav.names(f"{folder}/b/")) == [".s", "f"]
    assert dav.read(f"{folder}/b/.s") == b"staged"
    assert dav.names(f"{folder}/") == ["b/"]


# ---- GET


def test_conditions_of_a_get(dav: Dav, folder: str) -> None:
    etag = dav.put(f"{folder}/f").headers["etag"]
    assert dav("GET", f"{folder}/f", {"If-None-Match": etag}).status == 304
    assert dav("GET", f"{folder}/f", {"If-Match": '"other"'}).status == 412
    assert dav("HEAD", f"{folder}/f").headers["content-length"] == "4"
    assert dav("GET", f"{folder}/f", {"Range": "bytes=0-0", "If-Range": etag}).status == 206


def test_a_browser_gets_a_page_of_its_folder(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/a%20%3Cb%3E.iso", b"x" * 2048)
    dav("MKCOL", f"{folder}/sub")
    moved = dav("GET", folder)
    assert (moved.status, moved.headers["location"]) == (301, f"/dav{folder}/")
    reply = dav("GET", f"{folder}/")
    text = reply.body.decode()
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "<script" not in text
    assert f'href="/dav{folder}/a%20%3Cb%3E.iso" download' in text
    assert "a &lt;b&gt;.iso" in text
    assert "2.0 KiB" in text
    assert f'href="/dav{folder}/sub/"' in text


def test_an_image_that_waits_for_its_data_says_so(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f", b"")
    [queued] = dav.images(name_in(folder, "f"))
    with dav.tree() as tree:
        dav.core.images.declare_size(tree._context, queued.id, 10)
    assert dav("GET", f"{folder}/f").status == 409
    assert dav.prop(f"{folder}/f", f"{I}status") == "queued"


# ---- DELETE, MOVE, COPY, MKCOL


def test_a_move_is_a_rename(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    [before] = dav.images(name_in(folder, "f"))
    assert dav("MOVE", f"{folder}/f", {"Destination": f"{dav.url}{folder}/g"}).status == 201
    [after] = dav.images(name_in(folder, "g"))
    assert after.id == before.id


def test_a_copy_is_an_image_of_its_own(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f", QCOW2)
    dav("PROPPATCH", f"{folder}/f", {}, proppatch({f"{P}distro": "debian", f"{NS}mine": "x"}))
    assert dav("COPY", f"{folder}/f", {"Destination": f"{dav.url}{folder}/g"}).status == 201
    [old], [new] = dav.images(name_in(folder, "f")), dav.images(name_in(folder, "g"))
    assert (new.id != old.id, new.checksum, new.properties) == (True, old.checksum, old.properties)
    assert dav.prop(f"{folder}/g", f"{NS}mine") == "x"


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_overwriting_is_the_clients_to_forbid(dav: Dav, folder: str, method: str) -> None:
    dav.put(f"{folder}/f", b"f")
    dav.put(f"{folder}/g", b"g")
    said = {"Destination": f"{dav.url}{folder}/g", "Overwrite": "F"}
    assert dav(method, f"{folder}/f", said).status == 412
    assert dav.read(f"{folder}/g") == b"g"
    assert dav(method, f"{folder}/f", said | {"Overwrite": "X"}).status == 400
    assert dav(method, f"{folder}/f", said | {"Overwrite": "T"}).status == 204
    assert dav.read(f"{folder}/g") == b"f"


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_folders_and_files_take_each_others_places(dav: Dav, folder: str, method: str) -> None:
    for name in ("a", "b"):
        dav("MKCOL", f"{folder}/{name}")
        dav.put(f"{folder}/{name}/in_{name}", name.encode())
    dav.put(f"{folder}/file", b"file")
    assert dav(method, f"{folder}/a/", {"Destination": f"{dav.url}{folder}/b/"}).status == 204
    assert dav.names(f"{folder}/b/") == ["in_a"]
    assert dav(method, f"{folder}/b/", {"Destination": f"{dav.url}{folder}/file"}).status == 204
    assert dav.names(f"{folder}/file/") == ["in_a"]
    dav.put(f"{folder}/other", b"other")
    assert dav(method, f"{folder}/other", {"Destination": f"{dav.url}{folder}/file"}).status == 204
    assert dav.read(f"{folder}/file") == b"other"


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
@pytest.mark.parametrize(
    "case",
    [
        ("/a", "/a", 403),
        ("/a/", "/a/b/c", 403),
        ("/a/b", "/a", 403),
        ("/none", "/x", 404),
        ("/a/b", "/none/x", 409),
        ("/a/b", "/a/b", 403),
    ],
)
def test_what_can_go_nowhere(dav: Dav, folder: str, method: str, case: tuple[str, str, int]) -> None:
    source, target, status = case
    dav("MKCOL", f"{folder}/a")
    dav.put(f"{folder}/a/b")
    assert dav(method, f"{folder}{source}", {"Destination": f"{dav.url}{folder}{target}"}).status == status
    assert dav.names(f"{folder}/a/") == ["b"]


def test_a_folder_goes_with_all_in_it(dav: Dav, folder: str) -> None:
    for path in ("/a", "/a/b", "/a/b/c"):
        dav("MKCOL", f"{folder}{path}")
        dav.put(f"{folder}{path}/f")
    assert dav("DELETE", f"{folder}/a/", {"Depth": "0"}).status == 400
    assert dav("DELETE", f"{folder}/a/").status == 204
    assert dav.names(f"{folder}/") == []
    assert dav.images(name_in(folder, "a/f")) == []


def test_a_folder_says_what_had_to_stay(dav: Dav, folder: str) -> None:
    dav("MKCOL", f"{folder}/a")
    dav.put(f"{folder}/a/goes")
    dav.put(f"{folder}/a/stays")
    dav("PROPPATCH", f"{folder}/a/stays", {}, proppatch({f"{I}protected": "true"}))
    reply = dav("DELETE", f"{folder}/a")
    assert reply.status == 207
    assert [element.text for element in reply.xml.iter("{DAV:}href")] == [f"/dav{folder}/a/stays"]
    assert [element.text for element in reply.xml.iter("{DAV:}status")] == ["HTTP/1.1 403 Forbidden"]
    assert dav.names(f"{folder}/a/") == ["stays"]


def test_folders_are_made_where_they_can_be(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    for path, status in (("/a", 201), ("/a", 405), ("/f", 405), ("/none/a", 409), ("/f/a", 409), ("/b/", 201)):
        assert dav("MKCOL", f"{folder}{path}").status == status
    assert dav("MKCOL", f"{folder}/c", {}, b"body").status == 415
    assert dav("MKCOL", "/").status == 405


# ---- properties


def test_every_attribute_is_a_property(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f", QCOW2)
    values: dict[str, str | None] = {f"{P}os_type": "linux", f"{P}_x0030_day": "1", f"{I}min_ram": "64"}
    assert set(dav("PROPPATCH", f"{folder}/f", {}, proppatch(values)).statuses.values()) == {200}
    with dav.tree() as tree:
        entry = tree.lookup(name_in(folder, "f"))
        attributes = {name: tree.get_xattr(entry, name).decode() for name in tree.list_xattrs(entry)}
    props = dav("PROPFIND", f"{folder}/f", {"Depth": "0"}).entries[f"/dav{folder}/f"]
    shown = {name: element.text or "" for name, element in props.items() if "glancefs" in name}
    assert shown.pop(f"{P}_x0030_day") == attributes.pop("user.glance.property.0day") == "1"
    assert shown.pop(f"{P}os_type") == attributes.pop("user.glance.property.os_type")
    assert shown == {name.replace("user.glance.", I): text for name, text in attributes.items()}
    named = dav("PROPFIND", f"{folder}/f", {"Depth": "0"}, propfind(*props)).entries[f"/dav{folder}/f"]
    assert {name: element.text for name, element in named.items()} == {n: e.text for n, e in props.items()}


def test_properties_are_set_removed_and_rename(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    steps: dict[str, str | None] = {
        f"{I}type": "kernel",
        f"{P}a": "1",
        f"{NS}b": "2",
        f"{I}name": name_in(folder, "g"),
        "{DAV:}getlastmodified": "Tue, 14 Nov 2023 22:13:20 GMT",
    }
    assert set(dav("PROPPATCH", f"{folder}/f", {}, proppatch(steps)).statuses.values()) == {200}
    [image] = dav.images(name_in(folder, "g"))
    assert (image.type, dict(image.properties)) == (ImageType.KERNEL, {"a": "1", "mtime": "1700000000"})
    assert dav.prop(f"{folder}/g", f"{NS}b") == "2"
    gone: dict[str, str | None] = {f"{P}a": None, f"{NS}b": None, f"{P}never": None, f"{NS}never": None}
    assert set(dav("PROPPATCH", f"{folder}/g", {}, proppatch(gone)).statuses.values()) == {200}
    assert dav.prop(f"{folder}/g", f"{P}a") is None
    assert dav.prop(f"{folder}/g", f"{NS}b") is None


@pytest.mark.parametrize(
    ("name", "text", "status"),
    [
        (f"{I}size", "7", 403),
        (f"{I}owner", "bob", 403),
        (f"{I}type", "nonsense", 400),
        (f"{I}min_ram", "-1", 400),
        (f"{I}nonsense", "x", 400),
        (f"{I}type", None, 200),
        (f"{I}name", None, 403),
        ("{DAV:}getetag", "x", 403),
        ("{DAV:}resourcetype", None, 403),
        ("{DAV:}getlastmodified", "yesterday", 400),
        (f"{NS}long", "x" * 70_000, 400),
        (f"{P}long", "x" * 70_000, 400),
    ],
)
def test_what_can_not_be_set(dav: Dav, folder: str, name: str, text: str | None, status: int) -> None:
    dav.put(f"{folder}/f")
    reply = dav("PROPPATCH", f"{folder}/f", {}, proppatch({name: text}))
    assert (reply.status, reply.statuses) == (207, {name: status})


def test_dead_properties_are_kept_as_they_came(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    value = '<a xmlns="urn:x" b="1">text<c/>tail &lt;</a>'
    body = (
        f'<D:propertyupdate xmlns:D="DAV:" xml:lang="de"><D:set><D:prop><m xmlns="urn:example">{value}</m></D:prop>'
        f"</D:set></D:propertyupdate>"
    )
    for path in (f"{folder}/f", f"{folder}/"):
        assert dav("PROPPATCH", path, {}, body.encode()).statuses == {f"{NS}m": 200}
        element = next(iter(dav("PROPFIND", path, {"Depth": "0"}, propfind(f"{NS}m")).entries.values()))[f"{NS}m"]
        assert element.get("{http://www.w3.org/XML/1998/namespace}lang") == "de"
        [inner] = element
        assert (inner.tag, inner.get("b"), inner.text, inner[0].tail) == ("{urn:x}a", "1", "text", "tail <")
    reply = dav("PROPFIND", f"{folder}/", {"Depth": "1"}, propfind(f"{NS}m"))
    assert all(f"{NS}m" in props for props in reply.entries.values())


def test_what_explorer_says_of_times_is_kept(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    win32 = "{urn:schemas-microsoft-com:}Win32LastModifiedTime"
    reply = dav("PROPPATCH", f"{folder}/f", {}, proppatch({win32: "Tue, 14 Nov 2023 22:13:20 GMT"}))
    assert reply.statuses == {win32: 200}
    assert dav.prop(f"{folder}/f", win32) == dav.prop(f"{folder}/f", "{DAV:}getlastmodified")


def test_quotas_are_told_to_who_asks(dav: Dav, folder: str) -> None:
    names = ("{DAV:}quota-available-bytes", "{DAV:}quota-used-bytes")
    found = dav("PROPFIND", f"{folder}/", {"Depth": "0"}, propfind(*names)).entries[f"/dav{folder}/"]
    assert all(int(found[name].text or "") > 0 for name in names)
    assert dav.prop(f"{folder}/", names[0]) is None


# ---- the mount's own folder


def test_the_folder_of_the_mount_is_there_and_hidden(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f", b"data")
    [image] = dav.images(name_in(folder, "f"))
    assert ".glance/" not in dav.names()
    assert {"by-id/", "by-type/", "json/", "pending/", "errors"} <= set(dav.names("/.glance/"))
    assert dav.read(f"/.glance/by-id/{image.id}") == b"data"
    assert dav.prop(f"/.glance/by-id/{image.id}", "{DAV:}getcontentlength") == "4"
    assert image.id in dav.names("/.glance/by-id/")
    assert image.id.encode() in dav.read(f"/.glance/json/{image.id}.json")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/.glance/x"),
        ("PUT", "/.glance/errors"),
        ("MKCOL", "/.glance/x"),
        ("DELETE", "/.glance/errors"),
        ("DELETE", "/.glance/"),
        ("MOVE", "/.glance/errors"),
        ("LOCK", "/.glance/x"),
        ("PROPPATCH", "/.glance/errors"),
    ],
)
def test_nothing_in_it_can_be_changed(dav: Dav, method: str, path: str) -> None:
    body = {
        "PUT": b"x",
        "PROPPATCH": proppatch({f"{NS}a": "b"}),
        "LOCK": b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/>'
        b"</D:locktype></D:lockinfo>",
    }.get(method)
    reply = dav(method, path, {"Destination": f"{dav.url}/moved"}, body)
    assert reply.status == 403 or set(reply.statuses.values()) == {403}


def test_an_image_of_a_name_beside_another_is_reached_by_its_id(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f", b"one")
    with dav.tree() as tree:
        new = NewImage(name=name_in(folder, "f"), type=ImageType.RAW)
        second = dav.core.images.add(tree._context, new, io.BytesIO(b"two"))
    assert sorted(dav.names(f"{folder}/")) == ["f", f"f~{second.id}"]
    assert dav.put(f"{folder}/f~{second.id}", b"three").status == 204
    assert dav.read(f"{folder}/f") == b"one"
    assert sorted(image.size for image in dav.images(name_in(folder, "f"))) == [3, 5]


def test_links_that_lead_nowhere_are_left_out(dav: Dav, folder: str) -> None:
    dav.put(f"{folder}/f")
    [image] = dav.images(name_in(folder, "f"))
    assert dav("DELETE", f"{folder}/f").status == 204
    assert dav("GET", f"/.glance/by-id/{image.id}").status == 404
    assert image.id not in dav.names("/.glance/by-id/")
