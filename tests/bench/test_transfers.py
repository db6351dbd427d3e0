# SPDX-License-Identifier: Apache-2.0
"""How fast an image of 1 GiB goes in and comes out, and how much memory that takes."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from tests.bench.conftest import GIBI, Serve, ServeNginx
from tests.bench.figures import Report
from tests.bench.load import alternate, command, get, medians, send, warm_memory
from tests.bench.peers import Nginx, hash_alone, write_and_sync
from tests.support.servers import RunningServer

META = ["x-image-meta-name: large", "x-image-meta-type: raw", "x-image-meta-is_public: true"]
MEBI = 1 << 20


def post(server: RunningServer, file: Path) -> float:
    """Send a file, then take it away again and let the disk come to rest."""
    warm_memory(file.parent, GIBI)
    rate = send("POST", f"{server.url}/images/", file, headers=META)
    for image in server.ask("GET", "/images/").json["images"][:1]:
        assert server.ask("DELETE", f"/images/{image['id']}").status == 200
    os.sync()
    return rate


def put(nginx: Nginx, file: Path) -> float:
    """Send a file, then take it away again and let the disk come to rest."""
    warm_memory(file.parent, GIBI)
    rate = send("PUT", f"{nginx.url}/upload.img", file)
    (nginx.files / "upload.img").unlink()
    os.sync()
    return rate


def alone(file: Path, target: Path) -> float:
    """Write the same bytes to the disk, without a network."""
    warm_memory(file.parent, GIBI)
    return write_and_sync(file, target)


def test_transfers(report: Report, gibibyte: Path, tmp_path: Path, serve: Serve, serve_nginx: ServeNginx) -> None:
    ours, nginx, tuned = serve(workers=2), serve_nginx(workers=2), serve_nginx(workers=2, buffer="1m")
    unsynced = serve(workers=2, command=(str(command("eatmydata")),))
    # Before the first run, so that all of it counts.
    ours.forget_peaks()
    posts = alternate(
        5,
        ours=lambda: post(ours, gibibyte),
        nginx=lambda: put(nginx, gibibyte),
        tuned=lambda: put(tuned, gibibyte),
        unsynced=lambda: post(unsynced, gibibyte),
        disk=lambda: alone(gibibyte, tmp_path / "alone"),
        hashing=lambda: hash_alone(gibibyte),
    )
    middle = medians(posts)
    report.add("post", ours=middle["ours"], peer=middle["tuned"], runs=[posts])
    report.add("post-default", ours=middle["ours"], peer=middle["nginx"])
    report.add("post-disk", ours=middle["ours"], peer=middle["disk"])
    report.add("post-unsynced", ours=middle["unsynced"], peer=middle["tuned"])
    report.add("post-hash", ours=middle["unsynced"], peer=middle["hashing"])

    send("POST", f"{ours.url}/images/", gibibyte, headers=META)
    send("PUT", f"{nginx.url}/image", gibibyte)
    os.sync()
    [image] = ours.ask("GET", "/images/").json["images"]
    assert image["size"] == str(GIBI)
    for key, at_once in (("get", 1), ("get-4", 4)):
        # They are short, and one takes up to twice as long as the next, as the scheduler has it.
        gets = alternate(
            25,
            ours=partial(get, f"{ours.url}/images/{image['id']}", size=GIBI, at_once=at_once),
            nginx=partial(get, f"{nginx.url}/image", size=GIBI, at_once=at_once),
        )
        middle = medians(gets)
        report.add(key, ours=middle["ours"], peer=middle["nginx"], runs=[gets])
    peaks = [peak / MEBI for peak in ours.peaks()]
    report.add("busy", ours=max(peaks), runs=peaks)
