# SPDX-License-Identifier: Apache-2.0
"""Two servers and a mount on three hosts of a network, one registry and one Swift: whatever fails, all see the same.

Users on every host add, read, rename and delete at random, all at once. Meanwhile a host is cut off and let back, and a
server is killed and started anew. Afterwards nothing that was answered is missing, nothing is half, what was deleted is
gone, and every door shows the same images.

Threading: users are processes; the main thread starts everything.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.hosts_worker import DONE, OPEN, PROBE, acts_of, content, digest, key_of
from tests.support.databases import server
from tests.support.mounting import Mount, Mounts, eventually
from tests.support.networks import Network
from tests.support.processes import Argument, Process, Processes
from tests.support.proxies import Relay
from tests.support.registries import TOKEN, start_registry
from tests.support.servers import RunningServer, start_server
from tests.support.swift import KEY, USER, Swift

pytestmark = [pytest.mark.needs("fuse", "netns", "swift"), pytest.mark.e2e]

SERVERS = ("one", "two")
MOUNT = "three"
QUIET = 1.5
"""For how many seconds users act between two events, at the least."""
LONG = 240.0
"""For how many seconds hosts fail in the long test; to hold every image against what was told takes as long again."""
AWAY = {MOUNT: 5.0, SERVERS[1]: 2.5}
"""For how many seconds a host is cut off: longer than an answer of the registry is waited for, and shorter."""


@dataclass(slots=True, kw_only=True)
class Site:
    """All of it."""

    network: Network
    processes: Processes
    folder: Path
    env: Mapping[str, str]
    servers: dict[str, RunningServer] = field(default_factory=dict)
    mount: Mount
    users: list[Process] = field(default_factory=list)

    def start_server(self, host: str) -> None:
        """Start the server of a host, where it was before."""
        listen = f"{self.network.address(host)}:9292"
        self.servers[host] = start_server(
            self.processes,
            self.folder / host,
            "--insecure",
            command=self.network.command(host),
            env=self.env,
            listen=listen,
        )

    def start_user(self, host: str, number: int) -> None:
        """Let somebody on a host begin."""
        target = self.mount.point if host == MOUNT else self.servers[host].url
        name = f"{host}{number}"
        words: list[Argument] = [*self.network.command(host), sys.executable, "-m", "tests.e2e.hosts_worker"]
        root = Path(__file__).parents[2]
        self.users.append(self.processes.start([*words, name, str(len(self.users)), target], cwd=root))

    def acts(self) -> list[dict[str, Any]]:
        """Everything that users have said."""
        return [act for user in self.users for act in acts_of(user.log())]

    def wait_for_acts(self, *, seconds: float = QUIET) -> None:
        """Wait until everybody has got on."""
        before = [len(list(acts_of(user.log()))) for user in self.users]
        time.sleep(seconds)
        for user, seen in zip(self.users, before, strict=True):
            eventually(lambda user=user, seen=seen: len(list(acts_of(user.log()))) > seen + 2)  # type: ignore[misc]  # the loop's own

    def images(self, host: str) -> list[dict[str, Any]]:
        """All images, as a server shows them; each server has its own address in their URIs."""
        listed = self.servers[host].ask("GET", "/images/detail?is_public=none").json["images"]
        return sorted(({**image, "uri": None} for image in listed), key=lambda image: str(image["id"]))

    def names(self) -> set[str]:
        """The names of all images, as the mount shows them."""
        return {path.name for path in self.mount.point.iterdir()} - {".glance"}


Registry = Callable[[Network, ExitStack], Mapping[str, str]]
"""Gives what hosts are told of the one registry."""


@pytest.fixture(
    params=[
        pytest.param("server", marks=pytest.mark.soak),
        pytest.param("postgresql", marks=pytest.mark.needs("postgresql")),
    ]
)
def registry(request: pytest.FixtureRequest, processes: Processes, tmp_path: Path) -> Registry:
    """The one registry: served over HTTP from a host of its own, or a database that every host reaches itself."""

    def served(network: Network, _: ExitStack) -> Mapping[str, str]:
        running = start_registry(processes, tmp_path / "registry", listen=f"{network.here}:0")
        return {"GLANCEFS_REGISTRY": running.url, "GLANCEFS_REGISTRY_TOKEN": TOKEN}

    def database(network: Network, stack: ExitStack) -> Mapping[str, str]:
        running = server("postgresql")
        # From this host it is reached by its socket, from the others over the network, which can be cut.
        relay = stack.enter_context(Relay(listen=network.here, target=running._socket()))
        here, there = f"@/postgres?host={running.folder}&", f"@{network.here}:{relay.port}/postgres?"
        return {"GLANCEFS_REGISTRY": running.take().replace(here, there)}

    return served if request.param == "server" else database


@pytest.fixture
def site(swift: Swift, mounts: Mounts, processes: Processes, registry: Registry, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        network = stack.enter_context(Network(hosts=[*SERVERS, MOUNT]))
        relay = stack.enter_context(Relay(listen=network.here, target=("127.0.0.1", swift.ports["proxy"])))
        env = {
            **registry(network, stack),
            "GLANCEFS_DEFAULT_STORE": "swift",
            "GLANCEFS_STORES_SWIFT_AUTH_URL": f"http://{network.here}:{relay.port}/auth/v1.0",
            "GLANCEFS_STORES_SWIFT_AUTH_VERSION": "1",
            "GLANCEFS_STORES_SWIFT_USER": USER,
            "GLANCEFS_STORES_SWIFT_KEY": KEY,
            "GLANCEFS_STORES_SWIFT_CONTAINER": f"hosts-{secrets.token_hex(4)}",
            "GLANCEFS_STORES_SWIFT_TIMEOUT": "4",
        }
        mount = mounts.mount(data=tmp_path / MOUNT, env=env, command=network.command(MOUNT))
        site = Site(network=network, processes=processes, folder=tmp_path, env=env, mount=mount)
        for host in SERVERS:
            site.start_server(host)
        yield site
        mounts.end()


def test_hosts_that_fail_lose_nothing_and_agree_afterwards(site: Site) -> None:
    _run_and_check(site)


@pytest.mark.soak
def test_hosts_that_fail_for_long_lose_nothing_and_agree_afterwards(site: Site) -> None:
    _run_and_check(site, seconds=LONG)


def _run_and_check(site: Site, *, seconds: float = 0.0) -> None:
    """Let hosts fail once, and again until so many seconds are over."""
    _expect_changes_within_a_second(site, f"{PROBE}first")
    for host in (*SERVERS, MOUNT):
        for number in range(2):
            site.start_user(host, number)
    site.wait_for_acts()
    ends = time.monotonic() + seconds
    for number in count():
        for host, away in AWAY.items():
            site.network.cut(host)
            time.sleep(away)
            site.network.mend(host)
            site.wait_for_acts()
        site.servers[SERVERS[0]].process.kill()
        time.sleep(0.5)
        site.start_server(SERVERS[0])
        site.wait_for_acts()
        _expect_changes_within_a_second(site, f"{PROBE}again-{number}")
        if time.monotonic() >= ends:
            break
    for user in site.users:
        user.stop()
    _check(site)


def _expect_changes_within_a_second(site: Site, name: str) -> None:
    """Change something at each door, and see it at the others."""
    one, two = (site.servers[host] for host in SERVERS)
    data = content(name)
    said = {"x-image-meta-name": name, "x-image-meta-type": "raw", "content-type": "application/octet-stream"}
    # Whoever was cut off, or on whom others wait, may need a moment.
    eventually(lambda: one.ask("POST", "/images", said, data).status == 201)
    eventually(lambda: name in {image["name"] for image in site.images(SERVERS[1])}, seconds=1)
    eventually((site.mount / name).exists, seconds=1)
    assert (site.mount / name).read_bytes() == data
    (image,) = [image for image in site.images(SERVERS[1]) if image["name"] == name]
    assert two.ask("GET", f"/images/{image['id']}").body == data
    (site.mount / name).rename(site.mount / f"{name}-renamed")
    eventually(lambda: one.ask("HEAD", f"/images/{image['id']}").headers["x-image-meta-name"] == f"{name}-renamed")
    assert two.ask("DELETE", f"/images/{image['id']}").status in {200, 204}
    eventually(lambda: not (site.mount / f"{name}-renamed").exists(), seconds=1)
    assert one.ask("GET", f"/images/{image['id']}").status == 404


def _check(site: Site) -> None:
    acts = site.acts()
    assert [act for act in acts if act["what"] == "read" and act["outcome"] != DONE] == []
    kinds = {(act["what"], act["outcome"]) for act in acts if "outcome" in act}
    assert {("add", DONE), ("delete", DONE), ("rename", DONE), ("read", DONE)} <= kinds

    listed = site.images(SERVERS[0])
    assert site.images(SERVERS[1]) == listed
    assert {image["status"] for image in listed} <= {"available"}
    contents = {image["name"]: site.servers[SERVERS[1]].ask("GET", f"/images/{image['id']}").body for image in listed}
    assert len(contents) == len(listed)
    for image in listed:
        data = contents[image["name"]]
        assert data == content(key_of(data)), image["name"]
        assert (image["checksum"], image["size"]) == (digest(data), str(len(data)))
    # Where the answer to a commit was lost, who wrote got an error, and the file stays until somebody removes it.
    unsure = _keys(acts, "add", OPEN) - _keys(acts, "add", DONE)
    eventually(lambda: site.names() - unsure == contents.keys() - unsure)
    assert [name for name, data in contents.items() if (site.mount / name).read_bytes() != data] == []

    keys = [key_of(data) for data in contents.values()]
    assert len(keys) == len(set(keys)), "an image was added twice"
    added, deleted, perhaps = _keys(acts, "add", DONE), _keys(acts, "delete", DONE), _keys(acts, "delete", OPEN)
    assert added - deleted - perhaps - set(keys) == set(), "added, and lost"
    assert deleted & set(keys) == set(), "deleted, and there"
    assert set(keys) <= _keys(acts, "add", OPEN), "never added, and there"
    sys.stdout.write(json.dumps({"acts": len(acts), "added": len(added), "there": len(keys)}) + "\n")


def _keys(acts: list[dict[str, Any]], what: str, outcome: str) -> set[str]:
    return {act["key"] for act in acts if act["what"] == what and act["outcome"] == outcome}
