# SPDX-License-Identifier: Apache-2.0
"""A mount of a server by itself: whose images it shows, whom it trusts, and what it does when the server is gone.

Threading: some tests write in a thread while the server dies.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from glancefs.model import ImageStatus
from tests.e2e.conftest import USERS
from tests.e2e.mount.places import must_fail
from tests.support.mounting import Mount, Mounts, eventually
from tests.support.mounts import mounted as file_system
from tests.support.processes import Processes, product, run
from tests.support.servers import RunningServer, start_server

MIB = 1 << 20


def credentials(folder: Path, user: str) -> Path:
    """Write a file of credentials as the documentation has it."""
    file = folder / f"{user}.credentials"
    file.touch(mode=0o600)
    file.write_text(f"user={user}\npassword={USERS[user]}\n")
    return file


def post(server: RunningServer, user: str, name: str, data: bytes, **fields: str) -> str:
    """Add an image over REST."""
    basic = b64encode(f"{user}:{USERS[user]}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/octet-stream"}
    headers |= {"x-image-meta-name": name, "x-image-meta-type": "raw"}
    headers |= {f"x-image-meta-{field}": value for field, value in fields.items()}
    reply = server.ask("POST", "/images/", headers, data)
    assert reply.status == 201, reply.body
    return str(reply.image["id"])


def test_holes_are_zeros_on_the_server(mounted: Mount) -> None:
    with (mounted / "sparse").open("wb") as file:
        file.seek(4 * MIB)
        file.write(b"end")
    assert mounted.content("sparse") == bytes(4 * MIB) + b"end"
    (kept,) = (mounted.data / "images").glob("[0-9a-f][0-9a-f]/*")
    assert kept.stat().st_blocks * 512 >= 4 * MIB


def test_a_mount_shows_and_changes_what_the_server_lets_its_user(
    mounts: Mounts, guarded_server: RunningServer, tmp_path: Path
) -> None:
    server, place = guarded_server, tmp_path.name
    post(server, "bob", f"{place}/secret", b"bob's own")
    post(server, "bob", f"{place}/shown", b"for everybody", is_public="true")
    options = [f"credentials={credentials(tmp_path, 'alice')},staging={tmp_path / 'staging'}"]
    mount = mounts.mount(source=server.url, options=options)
    folder = mount / place
    assert mount.run("findmnt", "-no", "SOURCE,FSTYPE", mount.point).out.split() == [server.url, "fuse.glancefs"]
    assert [file.name for file in folder.iterdir()] == ["shown"]
    assert (folder / "shown").read_bytes() == b"for everybody"
    must_fail(errno.ENOENT, (folder / "secret").read_bytes)
    must_fail(errno.EPERM, (folder / "shown").unlink)
    (folder / "mine").write_bytes(b"alice's")
    assert os.getxattr(folder / "mine", "user.glance.owner") == b"alice"
    assert os.getxattr(folder / "mine", "user.glance.uri").startswith(server.url.encode())
    # What others do is seen without a look at the folder.
    assert not (folder / "later").exists()
    post(server, "bob", f"{place}/later", b"more", is_public="true")
    eventually((folder / "later").exists)
    (folder / "mine").rename(folder / "deep")
    assert sorted(file.name for file in folder.iterdir()) == ["deep", "later", "shown"]


def test_a_server_that_is_killed_costs_errors_in_time_and_no_image(
    mounts: Mounts, processes: Processes, tmp_path: Path
) -> None:
    server = start_server(processes, tmp_path / "data")
    listen = server.url.removeprefix("http://")
    staging = f"staging={tmp_path / 'staging'}"
    mount = mounts.mount(data=tmp_path / "data", source=server.url, options=[f"timeout=20,{staging},read_ahead=64"])
    data = os.urandom(24 * MIB)
    (mount / "there").write_bytes(data)

    with (mount / "there").open("rb") as reader:
        assert reader.read(MIB) == data[:MIB]
        server.process.kill()
        # What is asked for now is answered once there is a server again.
        answers: list[bytes] = []
        reading = threading.Thread(target=lambda: answers.append(reader.read()))
        reading.start()
        server = start_server(processes, tmp_path / "data", listen=listen)
        reading.join()
        assert answers == [data[MIB:]]

    writing = threading.Thread(target=(mount / "sent").write_bytes, args=[data * 4])
    writing.start()
    eventually(lambda: any((tmp_path / "data/images/incoming").glob("*")) or (mount / "sent").exists())
    server.process.kill()
    server = start_server(processes, tmp_path / "data", listen=listen)
    writing.join()
    assert mount.image("sent").size == len(data) * 4
    assert [image.status for image in mount.images()] == [ImageStatus.AVAILABLE] * 2
    assert (mount / "sent").read_bytes() == data * 4


def test_a_server_that_is_away_is_an_error_in_time_and_is_gone_on_with(
    mounts: Mounts, processes: Processes, tmp_path: Path
) -> None:
    server = start_server(processes, tmp_path / "data")
    listen = server.url.removeprefix("http://")
    # The kernel answers nothing by itself.
    options = [f"timeout=1,staging={tmp_path / 'staging'},cache={tmp_path / 'cache'},attr_timeout=0,entry_timeout=0"]
    mount = mounts.mount(data=tmp_path / "data", source=server.url, options=options)
    (mount / "there").write_bytes(b"data")
    assert (mount / "there").read_bytes() == b"data"
    server.process.kill()
    assert (mount / "there").read_bytes() == b"data"
    began = time.monotonic()
    must_fail(errno.EIO, (mount / "not there").stat)
    must_fail(errno.EIO, (mount / "folder").mkdir)
    must_fail(errno.EIO, lambda: (mount / "new").write_bytes(b"never sent"))
    # Generous: what is shown is that it ends at all.
    assert time.monotonic() - began < 60
    start_server(processes, tmp_path / "data", listen=listen)
    eventually(lambda: _is_fine(lambda: (mount / "after").write_bytes(b"data")))
    assert mount.content("after") == b"data"
    assert [image.name for image in mount.images() if image.name == "new"] == []
    assert "can't be reached" in (mount / ".glance/errors").read_text()


def test_only_a_server_that_is_trusted_is_mounted(mounts: Mounts, tls_server: RunningServer, tmp_path: Path) -> None:
    point = tmp_path / "point"
    point.mkdir()
    refused = run([product(), "mount", tls_server.url, point], expect=5)
    assert "can't be trusted" in refused.err
    assert len(refused.err.splitlines()) == 1
    options = [f"cacert={tls_server.trust},staging={tmp_path / 'staging'}"]
    mount = mounts.mount(source=tls_server.url, options=options)
    (mount / "a").write_bytes(b"data")
    assert (mount / "a").read_bytes() == b"data"


@pytest.mark.soak
@pytest.mark.needs("root")
def test_a_full_store_is_told_by_close(mounts: Mounts, processes: Processes, tmp_path: Path) -> None:
    with file_system(tmp_path, kind="tmpfs", size=16 * MIB) as place, Processes(tmp_path) as servers:
        server = start_server(servers, place / "data")
        options = [f"staging={tmp_path / 'staging'}"]
        mount = mounts.mount(data=place / "data", source=server.url, options=options)
        descriptor = os.open(mount / "a", os.O_WRONLY | os.O_CREAT)
        for _ in range(20):
            os.write(descriptor, bytes(MIB))
        must_fail(errno.ENOSPC, lambda: os.close(descriptor))
        assert mount.images() == []
        (mount / "small").write_bytes(b"small")
        assert mount.content("small") == b"small"
        mount.end()


@pytest.mark.soak
def test_three_gibibytes_there_and_back(mounted: Mount, tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as large:
        for number in range(48):
            large.seek(number * 64 * MIB)
            large.write(os.urandom(MIB))
        large.truncate(3 << 30)
    mounted.run("cp", file, "large", timeout=1200)
    mounted.run("cmp", file, "large", timeout=1200)
    assert mounted.image("large").size == 3 << 30


def _is_fine(work: Callable[[], object]) -> bool:
    try:
        work()
    except OSError:
        return False
    return True
