# SPDX-License-Identifier: Apache-2.0
"""How fast the WebDAV door is, beside other servers of WebDAV on the same disk."""

from __future__ import annotations

import os
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from tests.bench.conftest import GIBI, Serve
from tests.bench.dav_peers import ASKED, EVERYTHING, DavPeer, DavPeers, list_folder, look_at_one
from tests.bench.figures import DAV_PEERS, Report
from tests.bench.load import alternate, get, medians, send, warm_memory, wrk
from tests.support.mounting import fill_store
from tests.support.processes import Processes

pytestmark = pytest.mark.needs("apache", "nginx", "rclone")

MEBI = 1 << 20
ENTRIES = 10_000
CLIENTS = 8
ROUNDS = 5
LISTINGS = {"dav-list": ASKED, "dav-list-all": EVERYTHING}


@pytest.fixture
def peers(processes: Processes, tmp_path: Path) -> DavPeers:
    """Start peers for one test."""
    return DavPeers(processes=processes, folder=tmp_path)


def all_of(peers: DavPeers) -> dict[str, DavPeer]:
    """Start one of each, by the names that the figures have for them."""
    return {
        "nginx": peers.nginx(workers=2),
        "apache": peers.apache(workers=2),
        "rclone": peers.rclone(),
        "stock": peers.stock(),
    }


def note(report: Report, key: str, runs: dict[str, list[float]]) -> None:
    """Report ours beside each peer, where there is a figure for the two."""
    middle = medians(runs)
    for peer in DAV_PEERS[key]:
        report.add(f"{key}-{peer}", ours=middle["ours"], peer=middle[peer], runs=[runs])


def put(url: str, file: Path) -> float:
    """Send a file, then take it away again and let the disk come to rest."""
    warm_memory(file.parent, GIBI)
    rate = send("PUT", f"{url}/upload.img", file)
    request = urllib.request.Request(f"{url}/upload.img", method="DELETE")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 204
    os.sync()
    return rate


def test_transfers_over_webdav(report: Report, gibibyte: Path, serve: Serve, peers: DavPeers) -> None:
    ours, others = serve(workers=2), all_of(peers)
    tuned = peers.nginx(workers=2, buffer="1m")
    urls = {"ours": f"{ours.url}/dav"} | {name: peer.url for name, peer in others.items()}
    ours.forget_peaks()
    senders = {name: partial(put, url, gibibyte) for name, url in (urls | {"tuned": tuned.url}).items()}
    note(report, "dav-put", alternate(ROUNDS, **senders))
    for url in urls.values():
        send("PUT", f"{url}/image", gibibyte)
        os.sync()
    fetchers = {name: partial(get, f"{url}/image", size=GIBI) for name, url in urls.items()}
    note(report, "dav-get", alternate(ROUNDS, **fetchers))
    assert ours.ask("HEAD", "/dav/image").headers["content-length"] == str(GIBI)
    peaks = [peak / MEBI for peak in ours.peaks()]
    report.add("dav-busy", ours=max(peaks), runs=peaks)


@pytest.mark.parametrize("key", LISTINGS)
def test_listing_a_large_folder(report: Report, tmp_path: Path, serve: Serve, peers: DavPeers, key: str) -> None:
    fill_store(tmp_path / "data", ENTRIES)
    ours, others = serve(workers=1, data=tmp_path / "data"), all_of(peers)
    for peer in others.values():
        for number in range(1, ENTRIES + 1):
            (peer.files / f"image-{number:06}.qcow2").write_bytes(b"data")
    ours.forget_peaks()
    urls = {"ours": f"{ours.url}/dav/"} | {name: f"{peer.url}/" for name, peer in others.items()}
    firsts: list[float] = []

    def lists_per_second(name: str) -> float:
        listing = list_folder(urls[name], asked=LISTINGS[key])
        # Each entry opens and closes, and so does the folder itself.
        assert listing.entries in {ENTRIES + 1, 2 * (ENTRIES + 1)}, listing
        if name == "ours":
            firsts.append(listing.first * 1000)
        return 1 / listing.whole

    note(report, key, alternate(ROUNDS, **{name: partial(lists_per_second, name) for name in urls}))
    report.add(f"{key}-first", ours=medians({"first": firsts})["first"], runs=firsts)
    report.add(f"{key}-memory", ours=max(ours.peaks()) / MEBI)


def test_small_requests_over_webdav(report: Report, tmp_path: Path, serve: Serve, peers: DavPeers) -> None:
    ours, others = serve(workers=2), all_of(peers)
    data = os.urandom(4096)
    assert ours.ask("PUT", "/dav/small", {}, data).status == 201
    for peer in others.values():
        (peer.files / "small").write_bytes(data)
    urls = {"ours": f"{ours.url}/dav/small"} | {name: f"{peer.url}/small" for name, peer in others.items()}

    def gets(url: str) -> float:
        return wrk(url, clients=CLIENTS, seconds=3).per_second

    def looks(url: str) -> float:
        return look_at_one(url, folder=tmp_path, clients=CLIENTS, seconds=3).per_second

    for key, rate in (("dav-small", gets), ("dav-look", looks)):
        for url in urls.values():
            rate(url)
        note(report, key, alternate(3, **{name: partial(rate, url) for name, url in urls.items()}))
