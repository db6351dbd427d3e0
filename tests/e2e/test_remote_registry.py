# SPDX-License-Identifier: Apache-2.0
"""Several doors on one registry: a server on the database itself, a server and a mount on `glancefs registry`.

Answers for what a user of any of them sees, also while the registry is away. What is promised of every registry, the
contract tests.

Threading: writers run in threads; processes are started by the main thread.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.support.certificates import self_signed
from tests.support.mounting import Mounts, eventually
from tests.support.processes import PATIENCE, Argument, Processes, free_port, product, run
from tests.support.registries import TOKEN, start_registry
from tests.support.servers import RunningServer, start_server

RAW = {"x-image-meta-type": "raw", "content-type": "application/octet-stream"}
WRITERS = 3


@dataclass(slots=True, kw_only=True)
class Site:
    """One registry, served, and those who use it; all on the same folder of bytes."""

    registry: RunningServer
    near: RunningServer
    """On the database."""
    far: RunningServer
    """On the registry's server."""
    config: Path
    """What those on the registry's server are configured by."""
    again: Callable[[], RunningServer]
    """Start the registry's server anew, where it was."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with Processes(folder) as processes:
        yield make_site(processes, folder)


def make_site(processes: Processes, folder: Path) -> Site:
    data, port = folder / "data", free_port()

    def start() -> RunningServer:
        return start_registry(processes, data, listen=f"127.0.0.1:{port}")

    registry = start()
    config = folder / "far.toml"
    said = [f'data = "{data}"', f'registry = "http://127.0.0.1:{port}"', 'registry_token_file = "token"']
    config.write_text("\n".join([*said, "default_is_public = true\n"]))
    config.with_name("token").write_text(f"{TOKEN}\n")
    env = {"GLANCEFS_DEFAULT_IS_PUBLIC": "true"}
    near = start_server(processes, data, env=env)
    far = start_server(processes, data, "--config", config)
    return Site(registry=registry, near=near, far=far, config=config, again=start)


def post(server: RunningServer, name: str, data: bytes) -> str:
    reply = server.ask("POST", "/images", RAW | {"x-image-meta-name": name}, data)
    assert reply.status == 201, reply.body
    return str(reply.image["id"])


def names(server: RunningServer, *, prefix: str) -> set[str]:
    """Give the names of the public images that begin alike, without what they begin with; each test has its own."""
    found = {image["name"] for image in server.ask("GET", "/images").json["images"]}
    return {name.removeprefix(prefix) for name in found if name.startswith(prefix)}


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.needs("fuse")
def test_what_one_door_changes_all_see(site: Site, mounts: Mounts) -> None:
    mounted = mounts.mount(data=site.config.parent / "data", source=site.config)
    data = os.urandom(300_000)
    near, far = post(site.near, "a/near", data), post(site.far, "a/far", data)
    (mounted / "a").mkdir(exist_ok=True)
    (mounted / "a" / "mounted").write_bytes(data)
    for server in (site.near, site.far):
        assert names(server, prefix="a/") == {"near", "far", "mounted"}
        assert server.ask("GET", f"/images/{near}").body == server.ask("GET", f"/images/{far}").body == data
    eventually(lambda: listed(mounted / "a") == ["far", "mounted", "near"])
    assert [(mounted / "a" / name).read_bytes() == data for name in ("near", "far", "mounted")] == [True] * 3

    (mounted / "a" / "near").rename(mounted / "b")
    assert names(site.far, prefix="a/") == names(site.near, prefix="a/") == {"far", "mounted"}
    assert names(site.far, prefix="b") == {""}
    assert site.near.ask("DELETE", f"/images/{far}").status in {200, 204}
    eventually(lambda: listed(mounted / "a") == ["mounted"])
    assert site.far.ask("GET", f"/images/{far}").status == 404


def test_locations_and_the_token_stay_between_the_servers(site: Site) -> None:
    image = post(site.far, "located", b"data")
    told = site.registry.ask("GET", f"/images/{image}", {"Authorization": f"Bearer {TOKEN}"}).image
    key = told["location"].removeprefix("file:")
    assert len(key) == 32
    for path in ("/images", "/images/detail", f"/images/{image}", "/v1/images/detail", f"/v1/images/{image}", "/"):
        reply = site.far.ask("GET", path)
        assert key.encode() not in reply.body
        assert key not in str(reply.headers)
    for server in (site.registry, site.near, site.far):
        assert TOKEN not in server.process.log()
    shown = run([product(), "config", "show", "--config", site.config], env={"GLANCEFS_REGISTRY_TOKEN": ""})
    assert TOKEN not in shown.out


def test_a_server_whose_registry_is_away_says_so_in_time_and_goes_on_by_itself(site: Site) -> None:
    post(site.far, "away/before", b"data")
    site.registry.process.freeze()
    _expect_unavailable(site.far)
    site.registry.process.thaw()
    eventually(lambda: site.far.ask("GET", "/images").status == 200)
    site.registry.process.kill()
    for _ in range(3):
        _expect_unavailable(site.far)
    # Who has the database goes on.
    assert names(site.near, prefix="away/") == {"before"}
    site.registry = site.again()
    eventually(lambda: site.far.ask("GET", "/healthcheck").status == 200)
    post(site.far, "away/after", b"data")
    assert names(site.near, prefix="away/") == {"before", "after"}


def _expect_unavailable(server: RunningServer) -> None:
    began = time.monotonic()
    for method, headers, body in (("GET", {}, None), ("POST", RAW | {"x-image-meta-name": "away/lost"}, b"data")):
        reply = server.ask(method, "/images", headers, body)
        assert (reply.status, reply.json.get("type")) == (503, "urn:glancefs:error:registry-unavailable")
        assert reply.headers["retry-after"] == "5"
    # Ten seconds are promised for the two; a machine that is busy may take more, and who waits for ever much more.
    assert time.monotonic() - began < 45


def test_a_registry_that_is_killed_again_and_again_loses_nothing(site: Site) -> None:
    answered: list[tuple[str, str]] = []
    ended = threading.Event()

    def write(number: int) -> None:
        turn = 0
        while not ended.is_set():
            turn += 1
            name = f"killed-{number}-{turn}"
            headers = RAW | {"x-image-meta-name": name, "x-image-meta-id": name}
            try:
                reply = site.far.ask("POST", "/images", headers, name.encode())
            except (OSError, HTTPException) as error:
                pytest.fail(f"the server itself broke off: {error!r}")
            # 409 would be a row that its own asker was not told of.
            assert reply.status in {201, 503}, reply.body
            answered.append((name, str(reply.status)))

    writers = [threading.Thread(target=write, args=[number]) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    for _ in range(4):
        seen = len(answered)
        eventually(lambda seen=seen: len(answered) > seen + 5)  # type: ignore[misc]  # the loop's own
        site.registry.process.kill()
        site.registry = site.again()
    ended.set()
    for writer in writers:
        writer.join(PATIENCE)
    added = {name for name, status in answered if status == "201"}
    assert len(added) > 20
    there = {f"killed-{name}" for name in names(site.near, prefix="killed-")}
    assert added <= there
    assert there - added <= {name for name, status in answered if status == "503"}
    for name in sorted(there):
        assert site.far.ask("GET", f"/images/{name}").body == name.encode()


def test_a_registry_speaks_tls_with_several_workers_and_stops_cleanly(processes: Processes, tmp_path: Path) -> None:
    pem = self_signed(tmp_path)
    env = {"GLANCEFS_REGISTRY_SERVER_TLS_CERT": str(pem), "GLANCEFS_REGISTRY_SERVER_TLS_KEY": str(pem)}
    registry = start_registry(processes, tmp_path / "data", "--workers", "2", env=env)
    user = {
        "GLANCEFS_REGISTRY": registry.url.replace("127.0.0.1", "localhost"),
        "GLANCEFS_REGISTRY_TOKEN": TOKEN,
        "GLANCEFS_REGISTRY_CACERT": str(pem),
        "GLANCEFS_DATA": str(tmp_path / "data"),
    }
    (tmp_path / "a.raw").write_bytes(b"data")
    run([product(), "add", tmp_path / "a.raw"], env=user)
    assert [image["name"] for image in json.loads(run([product(), "list", "--json"], env=user).out)] == ["a.raw"]
    untrusted = run(
        [product(), "list"], env=user | {"GLANCEFS_REGISTRY_CACERT": "", "GLANCEFS_REGISTRY_TIMEOUT": "1"}, expect=5
    )
    assert "can't be trusted" in untrusted.err
    assert registry.process.stop() == 0


def test_a_registry_without_a_token_answers_this_machine_only(processes: Processes, tmp_path: Path) -> None:
    words: list[Argument] = [product(), "registry", "--data", tmp_path / "data"]
    refused = run([*words, "--listen", "0.0.0.0:0"], expect=2)
    assert "there is no registry_token" in refused.err
    refused = run(words, expect=2, env={"GLANCEFS_REGISTRY": "http://127.0.0.1:9"})
    assert "not another server" in refused.err
    refused = run(words, expect=2, env={"GLANCEFS_REGISTRY_TOKEN_FILE": str(tmp_path / "none")})
    assert "No such file" in refused.err
    refused = run(words, expect=2, env={"GLANCEFS_REGISTRY_TOKEN": "with blanks"})
    assert "with blanks" not in refused.err
    open_one = start_registry(processes, tmp_path / "data", env={"GLANCEFS_REGISTRY_TOKEN": ""})
    assert open_one.ask("GET", "/images").json == {"images": []}
    assert "there is no registry_token" in open_one.process.log()


def test_the_command_of_the_first_glance_is_there() -> None:
    assert "9191" in run([product("glance-registry"), "--help"]).out
