# SPDX-License-Identifier: Apache-2.0
"""The whole product on stores of other machines: server, mount and commands over a real Swift and its S3 API."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.mounting import Mounts, eventually
from tests.support.processes import Argument, Finished, Processes, product, run
from tests.support.servers import RunningServer, start_server
from tests.support.swift import KEY, USER, Swift, start_swift

pytestmark = [pytest.mark.needs("swift")]

MIB = 1 << 20
META = {"x-image-meta-name": "disk", "x-image-meta-type": "raw", "content-type": "application/octet-stream"}

ENGINE = r"glancefs\.stores\.objects\.engine"

Glancefs = Callable[..., Finished]


def configure(swift: Swift, **more: str) -> dict[str, str]:
    """What the environment says of a node whose images are in Swift, beside a bucket and a folder."""
    said = {
        "default_store": "swift",
        "stores_swift_auth_url": swift.auth_url,
        "stores_swift_auth_version": "1",
        "stores_swift_user": USER,
        "stores_swift_key": KEY,
        "stores_swift_container": f"images-{secrets.token_hex(4)}",
        "stores_swift_segment_size": "1M",
        "stores_swift_retries": "3",
        "stores_s3_bucket": f"images-{secrets.token_hex(4)}",
        "stores_s3_endpoint_url": swift.url,
        "stores_s3_region": "us-east-1",
        "stores_s3_access_key": USER,
        "stores_s3_secret_key": KEY,
        "stores_s3_path_style": "true",
    }
    return {f"GLANCEFS_{name.upper()}": value for name, value in (said | more).items()}


@pytest.fixture
def env(swift: Swift) -> dict[str, str]:
    return configure(swift)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def node(processes: Processes, data: Path, env: dict[str, str]) -> RunningServer:
    return start_server(processes, data, env=env)


@pytest.fixture
def glancefs(data: Path, env: dict[str, str]) -> Glancefs:
    def call(*words: Argument, **said: object) -> Finished:
        return run([product(), *words, "--data", data], env=env, **said)  # type: ignore[arg-type]  # handed on

    return call


def some_bytes(size: int) -> bytes:
    return hashlib.shake_256(b"seed").digest(size)


def test_images_go_into_the_store_that_was_said_and_come_out_in_ranges(
    node: RunningServer, glancefs: Glancefs, tmp_path: Path
) -> None:
    content = some_bytes(5 * MIB + 3)
    for store in ("swift", "s3", "file"):
        image = node.ask("POST", "/images/", META | {"x-image-meta-store": store}, content).image
        assert (image["store"], image["size"]) == (store, str(len(content)))
        path = f"/images/{image['id']}"
        assert node.ask("GET", path).body == content
        part = node.ask("GET", path, {"range": f"bytes={MIB - 1}-{3 * MIB}"})
        assert (part.status, part.body) == (206, content[MIB - 1 : 3 * MIB + 1])
    (tmp_path / "kernel").write_bytes(content)
    assert "kernel" in glancefs("add", "--store", "s3", tmp_path / "kernel").out
    refused = node.ask("POST", "/images/", META | {"x-image-meta-store": "tape"}, b"x")
    assert (refused.status, refused.json["detail"]) == (
        400,
        "There is no store 'tape' here; there are file, s3, swift.",
    )
    assert glancefs("check").err.rstrip().endswith("all well.")
    assert "Removed 0 abandoned uploads and 0 orphans" in glancefs("gc").out
    assert KEY not in glancefs("config", "show").out.replace(USER, "")


def test_data_move_between_stores_under_the_eyes_of_a_server(
    node: RunningServer, glancefs: Glancefs, processes: Processes, data: Path, env: dict[str, str]
) -> None:
    content = some_bytes(6 * MIB)
    image = node.ask("POST", "/images/", META, content).image
    path = f"/images/{image['id']}"
    # On this machine, and by the server on its own.
    for store, where in (("s3", ["--data", data]), ("file", ["--url", node.url]), ("swift", ["--url", node.url])):
        connection = node.connect()
        connection.request("GET", path)
        slow = connection.getresponse()
        head = slow.read(1000)
        assert f"is now in {store}" in run([product(), "move-data", "disk", "--to", store, *where], env=env).out
        assert head + slow.read() == content
        connection.close()
        assert node.ask("HEAD", path).headers["x-image-meta-store"] == store
        assert node.ask("GET", path).body == content
    # Killed at any moment, it can be begun again.
    for moment in (0.0, 0.2, 0.4):
        moving = processes.start([product(), "move-data", "--data", data, "disk", "--to", "file"], env=env)
        time.sleep(moment)
        moving.send(signal.SIGKILL)
        moving.wait()
        assert node.ask("GET", path).body == content
    glancefs("move-data", "disk", "--to", "file")
    assert node.ask("GET", path).body == content
    assert glancefs("check").err.rstrip().endswith("all well.")


@pytest.mark.needs("fuse")
def test_data_move_between_stores_under_the_eyes_of_a_mount(
    mounts: Mounts, glancefs: Glancefs, data: Path, env: dict[str, str]
) -> None:
    content = some_bytes(2 * MIB + 7)
    source = data.with_name("disk")
    source.write_bytes(content)
    glancefs("add", "--store", "file", source)
    mount = mounts.mount(data=data, env=env)
    with (mount / "disk").open("rb", buffering=0) as before:
        head = before.read(1000)
        glancefs("move-data", "disk", "--to", "s3")
        eventually(lambda: "s3" in os.getxattr(mount / "disk", "user.glance.store").decode())
        # As long as the first one is open, its file serves the others, too.
        assert (mount / "disk").read_bytes() == content
        assert head + before.read() == content
    eventually(lambda: not mount.statistics()["open_files"])
    with (mount / "disk").open("rb", buffering=0) as away:
        assert away.read(1000) == head
        glancefs("move-data", "disk", "--to", "file")
        assert (mount / "disk").read_bytes() == content
        assert head + away.read() == content
    eventually(lambda: not mount.statistics()["open_files"])
    assert (mount / "disk").read_bytes() == content


@pytest.fixture
def fragile(processes: Processes, tmp_path: Path) -> Swift:
    """A cluster of the test's own, whose proxy it kills."""
    return start_swift(processes, tmp_path / "cluster")


def test_a_swift_that_dies_is_a_503_and_nothing_else_suffers(fragile: Swift, processes: Processes, data: Path) -> None:
    node = start_server(processes, data, env=configure(fragile, stores_swift_retries="1"))
    content = some_bytes(3 * MIB)
    image = node.ask("POST", "/images/", META, content).image
    path = f"/images/{image['id']}"
    fragile.kill("proxy")
    for answer in (node.ask("GET", path), node.ask("POST", "/images/", META, content)):
        assert answer.status == 503
        assert "retry-after" in answer.headers
        assert answer.json["detail"].startswith("The store 'swift' failed at ")
        assert "127.0.0.1" not in answer.json["detail"]
    assert node.ask("HEAD", path).status == 200
    health = node.ask("GET", "/healthcheck")
    assert (health.status, "store swift" in health.body.decode()) == (503, True)
    assert 'glancefs_store_up{store="swift"} 0.0' in node.ask("GET", "/metrics").body.decode()
    elsewhere = node.ask("POST", "/images/", META | {"x-image-meta-store": "file"}, content).image
    assert node.ask("GET", f"/images/{elsewhere['id']}").body == content
    fragile.start_proxy()
    assert node.ask("GET", path).body == content
    assert [entry["id"] for entry in node.ask("GET", "/images/detail?is_public=none").json["images"]] == [
        elsewhere["id"],
        image["id"],
    ]
    # What was added while there was no Swift is not there, and nothing of it: its first call failed.
    assert node.ask("POST", "/images/", META, content).status == 201
    node.process.stop()
    # A server starts without it, too.
    fragile.kill("proxy")
    again = start_server(processes, data, env=configure(fragile, stores_swift_retries="1"))
    again.process.wait_for_line("Starting without the store 'swift', until it answers")
    # The log names Swift's address before the server names its own.
    again.url = again.process.wait_for_line(r"^glancefs \S+ at (\S+)$")[1]
    assert again.ask("GET", "/images/").status == 200


def test_a_download_is_resumed_beneath_the_client(fragile: Swift, processes: Processes, data: Path) -> None:
    node = start_server(processes, data, env=configure(fragile, stores_swift_retries="8"))
    content = some_bytes(40 * MIB)
    image = node.ask("POST", "/images/", META, content).image
    connection = node.connect()
    connection.request("GET", f"/images/{image['id']}")
    answer = connection.getresponse()
    head = answer.read(MIB)
    fragile.kill("proxy")
    fragile.start_proxy()
    assert head + answer.read() == content
    connection.close()


def test_a_swift_that_dies_in_the_middle_is_one_line_for_the_operator(
    fragile: Swift, processes: Processes, data: Path
) -> None:
    node = start_server(processes, data, env=configure(fragile, stores_swift_retries="1"))
    content = some_bytes(40 * MIB)
    path = f"/images/{node.ask('POST', '/images/', META, content).image['id']}"
    connection = node.connect()
    connection.request("GET", path)
    answer = connection.getresponse()
    head = answer.read(MIB)
    fragile.kill("proxy")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    connection.close()
    told = (
        rf"ERROR {ENGINE}: Store 'swift' failed at reading data: it does not answer \(.*{fragile.ports['proxy']}.*\)$"
    )
    node.process.wait_for_line(told)
    node.process.wait_for_line(rf"ERROR glancefs\.gateway: GET '{path}': The store 'swift' failed at reading data")
    fragile.start_proxy()
    assert head == content[:MIB]
    assert node.ask("GET", path).body == content

    def cut() -> Iterator[bytes]:
        yield content[: 8 * MIB]
        fragile.kill("proxy")
        yield content[8 * MIB : 8 * MIB + 1000]

    # The answer may come, and the server let go, while there is still something to send.
    with contextlib.suppress(ConnectionError):
        refused = node.ask("POST", "/images/", META, cut())
        assert (refused.status, refused.json["type"]) == (503, "urn:glancefs:error:store-unavailable")
    node.process.wait_for_line(rf"ERROR {ENGINE}: Store 'swift' failed at keeping data: (it|its login) does not answer")
    node.process.wait_for_line(r"WARNING gateway\.application: POST '/images/': StoreUnavailable: The store 'swift'")
    node.process.wait_for_line(r'"POST /images/" 503 ')
    fragile.start_proxy()
    assert node.ask("GET", path).body == content
    assert [f"/images/{image['id']}" for image in node.ask("GET", "/images?is_public=none").json["images"]] == [path]
    assert node.ask("POST", "/images/", META, content).status == 201
    # Why, once for each time that it died, and once for each request that this cost; nothing else.
    assert len(re.findall(r"\b(?:WARNING|ERROR|CRITICAL|Traceback)\b", node.process.log())) == 4


@pytest.mark.needs("fuse")
def test_files_of_a_mount_go_to_swift_when_they_are_closed(
    mounts: Mounts, fragile: Swift, processes: Processes, data: Path
) -> None:
    env = configure(fragile, stores_swift_retries="1")
    mount = mounts.mount(data=data, env=env)
    content = some_bytes(9 * MIB + 1)
    (data.parent / "disk").write_bytes(content)
    mount.run("cp", data.parent / "disk", "disk")
    assert mount.run("cat", "disk").stdout == content
    assert mount.run("dd", "if=disk", "bs=1000", "skip=5000", "count=1").stdout == content[5_000_000:5_001_000]
    told = run([product(), "show", "disk", "--json", "--data", data], env=env).out
    assert '"store": "swift"' in told
    assert not [file for file in data.rglob("*") if file.is_file() and file.stat().st_size > MIB]
    fragile.kill("proxy")
    # The error reaches close(2), and with it whoever copies; the file stays here and can be tried again.
    failed = mount.run("cp", data.parent / "disk", "another", expect=None)
    assert failed.returncode != 0
    assert "Input/output error" in failed.err
    fragile.start_proxy()
    mount.run("setfattr", "-n", "user.glance.status", "-v", "available", "another")
    assert mount.run("cat", "another").stdout == content
    mount.run("rm", "disk", "another")
    mount.end()
