# SPDX-License-Identifier: Apache-2.0
"""Who is asked to log in: most clients do so when they are asked, and not before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import USERS, Serve
from tests.support.dav_folder import DavFolder, basic
from tests.support.processes import Argument, product, run
from tests.support.servers import Reply

LOOK = {"Depth": "0"}


def is_asked(reply: Reply) -> bool:
    """Whether the answer asks who is there, as browsers and clients understand it."""
    return reply.status == 401 and reply.headers["www-authenticate"].startswith("Basic ")


def test_what_is_private_does_not_exist_for_others_and_nobody_unknown_changes_anything(
    guarded_folder: DavFolder,
) -> None:
    guarded_folder.put("a.img", b"data")
    anybody = DavFolder(server=guarded_folder.server, path=guarded_folder.path)
    bob = DavFolder(server=anybody.server, path=anybody.path, headers=basic("bob", USERS["bob"]))
    for other in (anybody, bob):
        for name in ("a.img", "nothing"):
            assert other.ask("PROPFIND", name, LOOK).status == other.ask("GET", name).status == 404
    for method in ("PUT", "DELETE", "MKCOL", "PROPPATCH", "LOCK", "MOVE", "COPY"):
        assert is_asked(anybody.ask(method, "a.img", {"Destination": f"{anybody.url}/b.img"})), method
    assert guarded_folder.properties("a.img")["{DAV:}getcontentlength"] == "4"


def test_who_is_not_known_sees_what_is_public_and_changes_nothing(guarded_folder: DavFolder) -> None:
    guarded_folder.put("open.img", b"data")
    guarded_folder.put("closed.img", b"data")
    image = guarded_folder.images()["open.img"]["id"]
    said = guarded_folder.server.ask(
        "PUT", f"/images/{image}", {**guarded_folder.headers, "x-image-meta-is_public": "true"}
    )
    assert said.status == 200
    anybody = DavFolder(server=guarded_folder.server, path=guarded_folder.path)
    assert anybody.names() == ["open.img"]
    assert anybody.get("open.img") == b"data"
    assert is_asked(anybody.put("open.img", b"other"))
    assert is_asked(anybody.ask("DELETE", "open.img"))


@pytest.fixture
def closed(serve: Serve, tmp_path: Path) -> DavFolder:
    """A server that asks everybody, and holds a public image."""
    words: list[Argument] = [product(), "user", "add", "--data", tmp_path / "data", "--password-stdin", "alice"]
    run(words, stdin=b"secret\n")
    server = serve(auth_mode="htpasswd", gateway_dav_anonymous="false", default_is_public="true")
    folder = DavFolder(server=server, path="/dav", headers=basic("alice", "secret"))
    assert folder.put("open.img", b"data").status == 201
    return folder


def test_a_server_may_ask_everybody(closed: DavFolder) -> None:
    anybody = DavFolder(server=closed.server, path="/dav")
    for method, name in (("PROPFIND", ""), ("PROPFIND", "open.img"), ("GET", "open.img"), ("GET", "")):
        assert is_asked(anybody.ask(method, name, LOOK if method == "PROPFIND" else None)), (method, name)
    # Clients ask what the door can do before they log in.
    assert anybody.ask("OPTIONS").status == 200
    assert closed.names() == ["open.img"]
    [image] = closed.server.ask("GET", "/images/").json["images"]
    assert closed.server.ask("GET", f"/images/{image['id']}").body == b"data"


@pytest.mark.needs("cadaver")
def test_a_client_that_waits_to_be_asked_logs_in_and_sees_what_is_private(closed: DavFolder, tmp_path: Path) -> None:
    closed.ask("MKCOL", "sub")
    closed.put("sub/private.img", b"data")
    image = closed.images()["sub/private.img"]["id"]
    closed.server.ask("PUT", f"/images/{image}", {**closed.headers, "x-image-meta-is_public": "false"})
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine {closed.server.host} login alice password secret\n")
    netrc.chmod(0o600)
    (tmp_path / "new.img").write_bytes(b"data")
    command = ["cadaver", f"{closed.url}/sub/"]
    said = run(command, stdin=b"ls\nput new.img\nquit\n", env={"HOME": str(tmp_path)}, cwd=tmp_path).out
    assert said.count("succeeded.") == 2, said
    assert "private.img" in said
    assert closed.images()["sub/new.img"]["owner"] == "alice"
