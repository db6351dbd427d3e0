# SPDX-License-Identifier: Apache-2.0
"""The registry on each database: what a page costs in a large one, and how many images many gateways add at once.

The figures are printed as they come; `MANY` images take some minutes to bring to each server.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from glancefs.registries.base import ImageQuery
from glancefs.registries.copying import copy_registry
from glancefs.registries.sql import SqlRegistry, registry_url
from tests.contract.registry_company import together
from tests.contract.registry_model import an_available_image
from tests.support.databases import new_server
from tests.support.many_images import FEW_OWNER, HALF_OWNER, fill, various_images
from tests.support.processes import DIE_WITH_PARENT

pytestmark = pytest.mark.bench

FEW, MANY = 1_000, 1_000_000
MOST = 1.5
"""A page of many images takes at the most so many times as long as one of few."""

GATEWAYS, THREADS, EACH = 8, 4, 50
VIEWERS: Mapping[str, ImageQuery] = {
    "the owner of half of them": ImageQuery(viewer=HALF_OWNER, is_public=None, limit=25),
    "the owner of one in ten thousand": ImageQuery(viewer=FEW_OWNER, is_public=None, limit=25),
    "nobody known": ImageQuery(limit=25),
    "an admin": ImageQuery(sees_all=True, is_public=None, limit=25),
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


def seconds_for(registry: SqlRegistry, query: ImageQuery) -> float:
    """Give how long a page takes, as most do."""
    taken = []
    for _ in range(200):
        began = time.perf_counter()
        found = registry.find(query)
        taken.append(time.perf_counter() - began)
        assert found
    return median(taken)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_a_page_of_many_images(filled: dict[int, str], kind: str) -> None:
    server = None if kind == "sqlite" else new_server(kind, durable=True)
    try:
        urls = filled
        if server is not None:
            server.start()
            urls = {count: server.fresh() for count in filled}
            for count, url in urls.items():
                copy_registry(filled[count], url, progress=lambda *_: None)
        with closing(SqlRegistry(url=urls[FEW])) as few, closing(SqlRegistry(url=urls[MANY])) as many:
            for who, query in VIEWERS.items():
                for marker in (None, "400"):
                    page = replace(query, marker=marker)
                    one, other = seconds_for(few, page), seconds_for(many, page)
                    ratio = other / one
                    where = "the first page" if marker is None else "a page in the middle"
                    verdict = f"promised {MOST}{'' if ratio <= MOST else ' (MISSED)'}"
                    milliseconds = f"{other * 1000:.2f} ms, of {FEW:,} {one * 1000:.2f} ms"
                    sys.stdout.write(
                        f"\n{kind}: 25 of {MANY:,} for {who}, {where}: {milliseconds}: {ratio:.2f} times, {verdict}"
                    )
    finally:
        if server is not None:
            server.remove()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_many_gateways_add_at_once(tmp_path: Path, kind: str) -> None:
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
        sys.stdout.write(f"\n{kind}: {GATEWAYS} processes add {count} images, synced: {count / taken:.0f}/s")
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
