# SPDX-License-Identifier: Apache-2.0
"""A real mount, as an operator makes it: `glancefs mount` in a process of its own, on a data folder.

Answers for starting and ending it, for looking at its images behind its back, and for a watchdog: a file system that
does not answer leaves its callers unkillable, so a mount that lives too long is killed, and with it all who wait.

Threading: `Mounts.mount` belongs to the main thread, as `Processes.start` does; the watchdog runs in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from glancefs.assembly import Assembly, assemble
from glancefs.config import Config
from glancefs.context import LOCAL_USER, RequestContext
from glancefs.model import Image, ImageStatus, ImageType, Location
from glancefs.registries.base import ImageQuery
from tests.support.leaks import mounts_below, unmount
from tests.support.many_images import START, fill
from tests.support.processes import PATIENCE, Argument, Finished, Process, Processes, product, run
from tests.support.servers import RunningServer, start_server

LIFE_SECONDS = 500.0
"""How long a mount of a test may live before the watchdog ends it; sooner than pytest gives up the run."""
LONG_LIFE_SECONDS = 7200.0
"""The same for tests that take minutes."""
COMMAND_SECONDS = PATIENCE
LOCAL = RequestContext(user=LOCAL_USER, is_admin=True)


@dataclass(slots=True, kw_only=True)
class Mount:
    """A running mount."""

    process: Process
    data: Path
    point: Path
    options: Sequence[str] = ()

    def __truediv__(self, name: str) -> Path:
        return self.point / name

    def run(self, *words: Argument, timeout: float = COMMAND_SECONDS, **said: Any) -> Finished:
        """Run a command, by default in the mount's folder, under timeout(1): one that hangs fails the test."""
        said.setdefault("cwd", self.point)
        return run(["timeout", "--kill-after=5", str(timeout), *words], timeout=timeout + 20, **said)

    def shell(self, script: str, *words: Argument, **said: Any) -> Finished:
        """Run a script of bash in the mount's folder."""
        return self.run("bash", "-c", script, "bash", *words, **said)

    def log(self) -> str:
        """What the daemon has said."""
        return self.process.log()

    def statistics(self) -> Mapping[str, Any]:
        """The numbers of `.glance/stats`."""
        numbers = json.loads((self.point / ".glance" / "stats").read_text())
        assert isinstance(numbers, dict)
        return numbers

    def end(self) -> None:
        """Take it away as an operator does, and wait for the daemon."""
        self.run(product(), "umount", self.point, cwd=self.data)
        assert self.process.wait() == 0

    def kill(self) -> None:
        """End the daemon as a power cut would, and clear the dead mount away."""
        self.process.kill()
        unmount(self.point)

    @contextmanager
    def core(self) -> Iterator[Assembly]:
        """The same images without the mount: as another process sees and changes them."""
        with assemble(Config.at(self.data)) as core:
            yield core

    def images(self) -> list[Image]:
        """All images, the oldest first."""
        with self.core() as core:
            return sorted(core.images.find_all(LOCAL, ImageQuery(is_public=None)), key=lambda image: image.created_at)

    def image(self, name: str) -> Image:
        """The one image of this name."""
        (found,) = [image for image in self.images() if image.name == name]
        return found

    def content(self, name: str) -> bytes:
        """The data of the one image of this name, as other doors give them."""
        image = self.image(name)
        with self.core() as core, core.images.open(LOCAL, image.id) as reader:
            return b"".join(reader.iter())


@dataclass(slots=True)
class Mounts:
    """Makes the mounts of one test; leaving the context ends them."""

    processes: Processes
    folder: Path
    life: float = LIFE_SECONDS
    made: list[Mount] = field(default_factory=list)
    guarded: list[Path] = field(default_factory=list)
    is_far: bool = False
    """Whether the images are mounted by way of a server on the data folder."""
    servers: dict[Path, RunningServer] = field(default_factory=dict)
    dogs: list[threading.Timer] = field(default_factory=list)

    def mount(
        self,
        *,
        data: Path | None = None,
        source: Argument | None = None,
        point: Path | None = None,
        options: Sequence[str] = (),
        command: Sequence[Argument] = (),
        **said: Any,
    ) -> Mount:
        """Mount a data folder, or ``source`` if there is one, and wait until it answers.

        ``command`` goes in front of it.
        """
        data = data or self.folder / "data"
        data.mkdir(exist_ok=True)
        if self.is_far and source is None:
            source = self.server_of(data).url
            options = [*options, f"staging={self.folder / 'staging'}"]
        if point is None:
            point = self.folder / f"mount{len(self.made)}"
            point.mkdir()
        words: list[Argument] = [*command, product(), "mount", source or data, point, "--foreground"]
        for option in options:
            words += ["-o", option]
        process = self.processes.start(words, **said)
        process.wait_for_line(f"is at {point}")
        mount = Mount(process=process, data=data, point=point, options=options)
        self.made.append(mount)
        self._watch(mount.point, process.pid)
        return mount

    def server_of(self, data: Path) -> RunningServer:
        """Give the server on a data folder, which is started where there is none."""
        server = self.servers.get(data)
        if server is None or not server.process.running:
            server = self.servers[data] = start_server(self.processes, data)
        return server

    def guard(self, point: Path, pid: int) -> None:
        """Have a mount that others made, by the process ``pid`` or its children, end in time and at the latest here."""
        self.guarded.append(point)
        self._watch(point, pid)

    def _watch(self, point: Path, pid: int) -> None:
        def end() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            unmount(point)

        dog = threading.Timer(self.life, end)
        dog.daemon = True
        dog.start()
        self.dogs.append(dog)

    def end(self) -> None:
        """End all that still run; a daemon that does not end by itself fails the test."""
        try:
            for mount in self.made:
                if mount.process.running:
                    mount.process.stop(timeout=60)
        finally:
            for dog in self.dogs:
                dog.cancel()
            for place in (*self.guarded, *(mount.point for mount in self.made)):
                for point in mounts_below(place):
                    unmount(point)


@pytest.fixture
def mounts(processes: Processes, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mounts]:
    """Make mounts for one test."""
    is_long = request.node.get_closest_marker("soak") is not None
    made = Mounts(processes, tmp_path, LONG_LIFE_SECONDS if is_long else LIFE_SECONDS)
    yield made
    made.end()


@pytest.fixture
def mounted(mounts: Mounts) -> Mount:
    """One mount of an empty data folder."""
    return mounts.mount()


def eventually(is_so: Callable[[], object], *, seconds: float = 1.0, patience: float = PATIENCE) -> None:
    """Wait until something is so. What is promised within ``seconds`` gets ``patience`` on a machine that is busy."""
    deadline = time.monotonic() + max(seconds, patience)
    while not is_so():
        if time.monotonic() > deadline:
            pytest.fail(f"not so after {patience} s", pytrace=True)
        time.sleep(0.02)


def fill_store(data: Path, count: int, *, folder: str = "") -> None:
    """Fill an empty data folder with small images, each with its file, in seconds rather than hours.

    ``folder`` is what their names begin with: ``folder/``.
    """
    data.mkdir(exist_ok=True)
    with assemble(Config.at(data), migrate=True):
        pass
    checksum = f"sha256:{hashlib.sha256(b'data').hexdigest()}"

    def images() -> Iterator[Image]:
        for number in range(1, count + 1):
            key = f"{number * 0x9E3779B97F4A7C15 % (1 << 64):032x}"[::-1]
            file = data / "images" / key[:2] / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"data")
            made = START + timedelta(seconds=number)
            yield Image(
                id=str(number),
                name=f"{folder}image-{number:06}.qcow2",
                type=ImageType.MACHINE,
                status=ImageStatus.AVAILABLE,
                size=4,
                store="file",
                owner=LOCAL_USER,
                is_public=False,
                created_at=made,
                updated_at=made,
                checksum=checksum,
                location=Location(store="file", key=key),
            )

    fill(data / "registry.sqlite", images())
