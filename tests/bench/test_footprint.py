# SPDX-License-Identifier: Apache-2.0
"""How soon the server answers after its start, and how much memory it takes when nobody asks anything."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.bench.conftest import Serve, ServeNginx
from tests.bench.figures import Report
from tests.bench.load import alternate, medians
from tests.support.processes import Processes, free_port, product

MEBI = 1 << 20


def wait_for_answer(url: str) -> None:
    """Ask until somebody answers."""
    while True:
        try:
            urllib.request.urlopen(url).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.002)
        else:
            return


def test_start(report: Report, tmp_path: Path, processes: Processes, serve_nginx: ServeNginx) -> None:
    port = free_port()
    listen = f"127.0.0.1:{port}"

    def ours() -> float:
        started = time.perf_counter()
        process = processes.start([product(), "serve", "--data", tmp_path / "data", "--listen", listen])
        wait_for_answer(f"http://{listen}/healthcheck")
        taken = time.perf_counter() - started
        assert process.stop() == 0
        return taken

    def peer() -> float:
        started = time.perf_counter()
        nginx = serve_nginx(workers=1)
        wait_for_answer(nginx.url)
        taken = time.perf_counter() - started
        assert nginx.process.stop() == 0
        return taken

    contenders: dict[str, Callable[[], float]] = {"ours": ours, "nginx": peer}
    runs = alternate(9, **contenders)
    middle = medians(runs)
    report.add("start", ours=middle["ours"], peer=middle["nginx"], runs=[runs])


def test_memory_when_idle(report: Report, serve: Serve) -> None:
    server = serve(workers=1)
    for _ in range(100):
        assert server.ask("GET", "/images/detail").status == 200
    report.add("idle", ours=server.memory() / MEBI)
