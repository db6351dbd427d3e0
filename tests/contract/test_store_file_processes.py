# SPDX-License-Identifier: Apache-2.0
"""What `glancefs.stores.file` promises between processes: claims that die with theirs, and sweeps beside uploads.

The other process is this module, run as a program: ``python -m ... WHAT FOLDER``.

Threading: none of its own.
"""

from __future__ import annotations

import io
import signal
import sys
import time
from pathlib import Path

import pytest

from glancefs.errors import DataMissing
from glancefs.model import Location
from glancefs.stores.base import Swept
from glancefs.stores.file import FileStore
from tests.contract.store_contract import Breaking
from tests.contract.store_steps import none_known
from tests.support.capabilities import ROOT
from tests.support.processes import Process, Processes

UPLOADS = 150
PROMISED = 20 * 1024 * 1024
ARRIVED = 3 * 1024 * 1024


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(path=tmp_path / "store")


def start(processes: Processes, what: str, store: FileStore) -> Process:
    folder = store.staging_folder.parent
    return processes.start([sys.executable, "-m", __name__, what, folder], cwd=ROOT)


@pytest.mark.parametrize("what", ["claim", "upload", "complete"])
def test_a_claim_dies_with_its_process_and_the_sweep_takes_the_rest(
    store: FileStore, processes: Processes, what: str
) -> None:
    process = start(processes, what, store)
    location = Location(store="file", key=process.wait_for_line(r"^([0-9a-f]{32})$")[1])
    assert store.is_claimed(location)
    assert store.sweep(none_known) == Swept()
    process.send(signal.SIGKILL)
    process.wait()
    assert not store.is_claimed(location)
    swept = store.sweep(none_known)
    assert (swept.uploads, swept.orphans) == ((0, 1) if what == "complete" else (1, 0))
    assert swept.size == {"claim": 0, "upload": PROMISED, "complete": 4096}[what]
    assert not list(store.staging_folder.iterdir())


def test_a_sweep_of_another_process_takes_nothing_from_uploads_of_this_one(
    store: FileStore, processes: Processes
) -> None:
    sweeper = start(processes, "sweep", store)
    sweeper.wait_for_line("sweeping")
    kept = []
    for number in range(UPLOADS):
        data = bytes([number]) * (number * 5000)
        with store.claim() as key:
            stored = store.add(key, io.BytesIO(data), size=len(data))
            with store.open(stored.location) as stream:
                assert stream.read() == data
            assert store.is_claimed(stored.location)
            kept.append(stored.location)
    # Without rows to name them, the other process took all of them once their claims were over.
    deadline = time.monotonic() + 30
    while any(exists(store, location) for location in kept):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert sweeper.running


def test_a_sweep_of_this_process_takes_nothing_from_uploads_of_another(store: FileStore, processes: Processes) -> None:
    uploader = start(processes, "upload-many", store)
    while uploader.running:
        store.sweep(none_known)
    assert uploader.wait() == 0
    assert f"{UPLOADS} uploads" in uploader.log()
    store.sweep(none_known)
    assert not list(store.staging_folder.iterdir())


def exists(store: FileStore, location: Location) -> bool:
    try:
        store.size(location)
    except DataMissing:
        return False
    return True


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def be_other_process(what: str, folder: str) -> None:
    store = FileStore(path=Path(folder))
    if what == "sweep":
        say("sweeping")
        while True:
            store.sweep(none_known)
    if what == "upload-many":
        upload_many(store)
        return
    with store.claim() as key:

        def wait() -> None:
            say(key)
            time.sleep(600)

        if what == "upload":
            store.add(key, Breaking(ARRIVED, wait), size=PROMISED)
        if what == "complete":
            store.add(key, io.BytesIO(b"complete"), size=8)
        wait()


def upload_many(store: FileStore) -> None:
    for number in range(UPLOADS):
        with store.claim() as key:
            stored = store.add(key, io.BytesIO(bytes(number * 5000)), size=None)
            if store.size(stored.location) != number * 5000:
                sys.exit("data vanished")
    say(f"{UPLOADS} uploads")


if __name__ == "__main__":
    be_other_process(*sys.argv[1:])
