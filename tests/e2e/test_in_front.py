# SPDX-License-Identifier: Apache-2.0
"""HAProxy in front of two servers, with the configuration that the page on several hosts shows.

Answers for what passes through it (uploads of both framings, ranges, long questions for changes, a mount), and for one
of the two that dies. Only places differ from the page: addresses, and where the certificate is.

Threading: none.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.support.capabilities import ROOT, tool
from tests.support.certificates import self_signed
from tests.support.mounting import Mounts, eventually
from tests.support.processes import Processes, free_port, run
from tests.support.servers import RunningServer, start_server

pytestmark = pytest.mark.needs("haproxy", "openssl")

DATA = Random(12).randbytes(3 << 20)
CURL = ("curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "60")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Two servers on one data folder, and what is in front of them."""

    url: str
    certificate: Path
    servers: tuple[RunningServer, RunningServer]

    def curl(self, *words: str, stdin: bytes = b"", expect: int | None = 0) -> bytes:
        """Ask the front, as a client of its own; gives the body."""
        return run([*CURL, "--cacert", self.certificate, *words], stdin=stdin, expect=expect).stdout

    def add(self, name: str, *words: str, stdin: bytes = b"") -> str:
        """Add an image and give its identifier."""
        kind = ("-H", f"x-image-meta-name: {name}", "-H", "x-image-meta-type: raw", "-X", "POST")
        said = json.loads(self.curl(*kind, *words, f"{self.url}/images", stdin=stdin))
        return str(said["image"]["id"])


@pytest.fixture
def site(processes: Processes, tmp_path: Path) -> Iterator[Site]:
    """The site of the page, on this machine."""
    certificate = self_signed(tmp_path)
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    one, two = [start_server(processes, tmp_path / "data", env={"GLANCEFS_GATEWAY_PUBLIC_URL": url}) for _ in range(2)]
    page = (ROOT / "docs" / "how-to" / "several-hosts.md").read_text()
    [shown] = re.findall(r"^```haproxy\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for place, ours in (
        # Not everybody may open so many files.
        ("maxconn 20000", "maxconn 2000"),
        ("bind :443", f"bind 127.0.0.1:{port}"),
        ("/etc/haproxy/images.pem", str(certificate)),
        ("10.0.0.11:9292", f"127.0.0.1:{one.port}"),
        ("10.0.0.12:9292", f"127.0.0.1:{two.port}"),
    ):
        assert shown.count(place) == 1
        shown = shown.replace(place, ours)
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(shown)
    program = tool("haproxy")
    assert program is not None
    assert "[ALERT]" not in run([program, "-c", "-f", configuration]).err
    front = processes.start([program, "-db", "-f", configuration])
    front.wait_for_port(port)
    yield Site(url=url, certificate=certificate, servers=(one, two))
    front.kill()


def test_what_clients_do_passes_through(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.write_bytes(DATA)
    known = site.add("known", "--upload-file", str(file))
    # Of unknown size, in chunks; and asked for first.
    piped = site.add("piped", "--upload-file", "-", "-H", "Expect: 100-continue", stdin=DATA)
    for name in (known, piped):
        assert site.curl(f"{site.url}/images/{name}") == DATA
        assert site.curl("--range", "1000000-1999999", f"{site.url}/images/{name}") == DATA[1_000_000:2_000_000]
    listed = json.loads(site.curl(f"{site.url}/images/detail?is_public=none"))["images"]
    assert {image["uri"] for image in listed} == {f"{site.url}/images/{name}" for name in (known, piped)}
    changes = json.loads(site.curl(f"{site.url}/images/changes?since=0"))["changes"]
    assert {image["id"] for image in changes["images"]} == {known, piped}
    # Nothing comes after the last: the question waits as long as it says, and is answered.
    last = changes["revision"]
    assert json.loads(site.curl(f"{site.url}/images/changes?since={last}&wait=2"))["changes"]["images"] == []


def test_when_one_dies_the_other_goes_on(site: Site) -> None:
    before = site.add("before", "--upload-file", "-", stdin=DATA)
    site.servers[0].process.kill()
    # HAProxy needs a moment to see it.
    eventually(lambda: _all_succeed(site, before), seconds=5)
    after = site.add("after", "--upload-file", "-", stdin=DATA)
    assert site.curl(f"{site.url}/images/{after}") == DATA


@pytest.mark.needs("fuse")
def test_a_mount_of_both(site: Site, mounts: Mounts, tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.write_bytes(DATA * 8)
    options = [f"cacert={site.certificate}", f"staging={tmp_path / 'staging'}"]
    mount = mounts.mount(source=site.url, options=options)
    for number in range(3):
        mount.run("cp", file, f"copy-{number}")
        mount.run("cmp", file, f"copy-{number}")
    site.add("elsewhere", "--upload-file", "-", stdin=DATA)
    eventually((mount / "elsewhere").exists)
    site.servers[1].process.kill()
    eventually(lambda: mount.run("ls", "-l", expect=None).returncode == 0, seconds=5)
    mount.run("cp", file, "after")
    mount.run("cmp", file, "after")
    mount.run("cmp", file, "copy-0")


def _all_succeed(site: Site, name: str) -> bool:
    time.sleep(0.2)
    return all(site.curl(f"{site.url}/images/{name}", expect=None) == DATA for _ in range(4))
