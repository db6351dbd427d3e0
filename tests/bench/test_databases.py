# SPDX-License-Identifier: Apache-2.0
"""The registry on each database: what a page costs in a large one, and how many images many gateways add at once.

`MANY` images take some minutes to bring to each server.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from glancefs.registries.base import ImageQuery
from glancefs.registries.copying import copy_registry
from glancefs.registries.sql import SqlRegistry, registry_url
from tests.bench.figures import KINDS, Report
from tests.contract.registry_company import together
from tests.contract.registry_model import an_available_image
from tests.support.databases import new_server
from tests.support.many_images import FEW_OWNER, HALF_OWNER, fill, various_images
from tests.support.processes import DIE_WITH_PARENT

pytestmark = pytest.mark.bench

FEW, MANY = 1_000, int(os.environ.get("GLANCEFS_BENCH_IMAGES", "1_000_000"))
"""How many images a registry holds; another number than a million is for trying the benchmark, and not written down."""

WRITTEN_DOWN = 1_000_000

ROUNDS = 200
GATEWAYS, THREADS, EACH = 8, 4, 50
QUERIES: Mapping[str, ImageQuery] = {
    "half": ImageQuery(viewer=HALF_OWNER, is_public=None, limit=25),
    "few": ImageQuery(viewer=FEW_OWNER, is_public=None, limit=25),
    "anonymous": ImageQuery(limit=25),
    "admin": ImageQuery(sees_all=True, is_public=None, limit=25),
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    urls = {}
    for count in (FEW, MANY):
        folder = tmp_path_factory.mktemp("filled")
        urls[count] = registry_url(folder)
        SqlRegistry(url=urls[count], migrate=True).close()
        fill(folder / "registry.sqlite", various_images(count))
    return urls


def seconds_for(registries: Sequence[SqlRegistry], query: ImageQuery) -> list[float]:
    """Give how long a page takes in each, as most do; they take turns, so that what else goes on befalls all alike."""
    taken: list[list[float]] = [[] for _ in registries]
    for _ in range(ROUNDS):
        for registry, times in zip(registries, taken, strict=True):
            began = time.perf_counter()
            found = registry.find(query)
            times.append(time.perf_counter() - began)
            assert found
    return [median(times) for times in taken]


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_of_many_images(report: Report, filled: dict[int, str], kind: str) -> None:
    server = None if kind == "sqlite" else new_server(kind, durable=True)
    try:
        urls = filled
        if server is not None:
            server.start()
            urls = {count: server.fresh() for count in filled}
            for count, url in urls.items():
                copy_registry(filled[count], url, progress=lambda *_: None)
        with closing(SqlRegistry(url=urls[FEW])) as few, closing(SqlRegistry(url=urls[MANY])) as many:
            for who, query in QUERIES.items():
                pages = [replace(query, marker=marker) for marker in (None, "400")]
                taken = [seconds_for((few, many), page) for page in pages]
                one, other = max(taken, key=lambda pair: pair[1] / pair[0])
                assert min(one, other) > 0
                tell(report, f"{kind}-list-{who}", ours=1 / other, peer=1 / one, runs=taken)
    finally:
        if server is not None:
            server.remove()


def tell(report: Report, key: str, *, ours: float, peer: float | None = None, runs: Sequence[object] = ()) -> None:
    """Note a figure, unless the benchmark is only being tried."""
    noted = report if MANY == WRITTEN_DOWN else Report()
    noted.add(key, ours=ours, peer=peer, runs=runs)
    sys.stdout.write(f"\n{noted.measured[key].cells()} {runs}")


@pytest.mark.parametrize("kind", KINDS)
def test_many_gateways_add_at_once(report: Report, tmp_path: Path, kind: str) -> None:
    server = None if kind == "sqlite" else new_server(kind, durable=True)
    try:
        if server is not None:
            server.start()
        url = registry_url(tmp_path) if server is None else server.fresh()
        SqlRegistry(url=url, migrate=True).close()
        command = [*DIE_WITH_PARENT, sys.executable, "-m", __name__, url]
        processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(GATEWAYS)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        began = time.perf_counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.close()
        assert [process.wait(600) for process in processes] == [0] * GATEWAYS
        taken = time.perf_counter() - began
        for process in processes:
            assert process.stdout is not None
            process.stdout.close()
        count = GATEWAYS * THREADS * EACH
        with closing(SqlRegistry(url=url)) as registry:
            told = [image.revision for image in registry.changes(since=0, limit=count + 1).images]
            assert told == list(range(1, count + 1))
        tell(report, f"{kind}-adds", ours=count / taken)
    finally:
        if server is not None:
            server.remove()


def main(url: str) -> None:
    """Be one of the gateways."""
    with closing(SqlRegistry(url=url)) as registry:
        registry.revision()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        together(lambda _: [registry.add(an_available_image()) for _ in range(EACH)], threads=THREADS)


if __name__ == "__main__":
    main(*sys.argv[1:])
