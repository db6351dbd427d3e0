# SPDX-License-Identifier: Apache-2.0
"""`glancefs up`: the server and the mount together, what is seen of them, and how they end.

On a pipe each event is a line, on a terminal there is a picture. However it ends, no process and no mount is left.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from glancefs.assembly import assemble
from glancefs.config import Config
from glancefs.fuse.table import mounted_at
from glancefs.registries.base import ImageQuery
from tests.support.leaks import mounts_below, unmount
from tests.support.mounting import LIFE_SECONDS, LOCAL, eventually
from tests.support.processes import Argument, Process, Processes, product, run
from tests.support.terminal import CTRL_C, FIRST_SCREEN, OTHER_SCREEN, Terminals

MIB = 1 << 20
HEAD = r"^ ?glancefs \S+ at http://127\.0\.0\.1:(\d+)$"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nothing stays mounted, whatever becomes of the test."""

    def clear() -> None:
        for point in mounts_below(tmp_path):
            unmount(point)

    dog = threading.Timer(LIFE_SECONDS, clear)
    dog.daemon = True
    dog.start()
    yield tmp_path
    dog.cancel()
    dog.join()
    clear()


Up = Callable[..., Process]


@pytest.fixture
def up(home: Path, processes: Processes) -> Up:
    """Start both doors with their output on a file, and wait until they answer."""

    def start(*words: Argument, ready: str = "^  files ") -> Process:
        process = processes.start(command(home, *words), cwd=home)
        process.wait_for_line(ready)
        return process

    return start


def command(home: Path, *words: Argument) -> list[Argument]:
    return [product(), "up", "--data", home / "data", "--listen", "127.0.0.1:0", *words, home / "images"]


def port_of(text: str) -> int:
    """The port that the server got."""
    for line in text.splitlines():
        if " at http://127.0.0.1:" in line:
            return int(line.rpartition(":")[2])
    pytest.fail(f"no address in {text}")


def children(pid: int) -> list[psutil.Process]:
    """The server and the mount."""
    return sorted(psutil.Process(pid).children(), key=lambda child: (child.create_time(), child.pid))


def names(home: Path) -> set[str | None]:
    """The images that are there."""
    with assemble(Config.at(home / "data")) as core:
        return {image.name for image in core.images.find_all(LOCAL, ImageQuery(is_public=None))}


@contextmanager
def upload(port: int, *, name: str, size: int) -> Iterator[http.client.HTTPConnection]:
    """Begin to add an image; its bytes are to be sent."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("POST", "/images")
    for field, value in (("x-image-meta-name", name), ("x-image-meta-type", "raw"), ("Content-Length", str(size))):
        connection.putheader(field, value)
    connection.endheaders()
    try:
        yield connection
    finally:
        connection.close()


def add(port: int, *, name: str, data: bytes) -> None:
    with upload(port, name=name, size=len(data)) as connection:
        connection.send(data)
        assert connection.getresponse().status == 201


@pytest.mark.needs("fuse")
def test_on_a_pipe_each_event_is_a_line_and_all_workers_are_counted(home: Path, up: Up) -> None:
    process = up("--workers", "2")
    port, point = port_of(process.log()), home / "images"
    for number in range(4):
        add(port, name=f"by rest/{number}", data=bytes(MIB))
        process.wait_for_line(rf"^\d\d:\d\d:\d\d upload of by rest/{number}: 1\.0 MiB in \S+ s, ")
    (point / "by mount").write_bytes(bytes(2 * MIB))
    process.wait_for_line(r" upload of by mount: 2\.0 MiB in ")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/dav/by%20mount")
    assert connection.getresponse().read() == bytes(2 * MIB)
    connection.close()
    process.wait_for_line(r" download of by mount: 2\.0 MiB in ")
    # Nobody need hear of what is asked about images, only of their data.
    assert process.log().count("load of ") == 6

    run([product(), "umount", point])
    process.wait_for_line("The mount was taken away; going on without it.")
    add(port, name="afterwards", data=b"x")
    assert process.stop() == 0
    assert process.log().splitlines()[-1].endswith(": 6 uploads (6.0 MiB), 1 download (2.0 MiB).")


@pytest.mark.needs("fuse")
def test_on_a_terminal_there_is_a_picture_of_what_goes_on(home: Path, terminals: Terminals) -> None:
    terminal = terminals.open(command(home), cwd=home)
    picture = terminal.wait_for("^  holds    0 images, 0 B; .* free$")
    port = port_of(picture[0])
    assert any(line.startswith(f"  files    {home}"[:60]) for line in picture)
    assert picture[23] == " Ctrl-C ends it"
    with upload(port, name="debian/12", size=4 * MIB) as connection:
        connection.send(bytes(MIB))
        terminal.wait_for(r"^  ↑ debian/12 +━+─+  25%  1\.0 MiB of 4\.0 MiB  .*/s  \d+:\d\d$")
        terminal.resize(40, 12)
        small = terminal.wait_for(r"^  ↑ debian/12 +1\.0 MiB of 4\.0 MiB$")
        assert len(small) == 12
        assert max(map(len, small)) < 40
        terminal.resize(80, 24)
        connection.send(bytes(3 * MIB))
        assert connection.getresponse().status == 201
    terminal.wait_for(r"^  holds    1 image, 4\.0 MiB;")
    terminal.wait_for(r" upload of debian/12: 4\.0 MiB in ")
    terminal.type(CTRL_C)
    assert terminal.wait() == 0
    assert terminal.text().count(OTHER_SCREEN) == terminal.text().count(FIRST_SCREEN) == 1
    assert "\x1b[?25h" in terminal.text().rpartition(FIRST_SCREEN)[2] or "\x1b[?25h" in terminal.text()[-200:]
    assert terminal.plain().splitlines()[-1].endswith(": 1 upload (4.0 MiB).")
    assert mounted_at(home / "images") is None


def test_a_terminal_that_is_to_be_plain_gets_lines(home: Path, terminals: Terminals) -> None:
    terminal = terminals.open(command(home)[:-1], env={"NO_COLOR": "1"}, cwd=home)
    terminal.wait_for(HEAD)
    terminal.wait_for("^Everybody is the admin")
    terminal.type(CTRL_C)
    assert terminal.wait() == 0
    assert "\x1b" not in terminal.text()


@pytest.mark.needs("fuse")
@pytest.mark.parametrize("victim", ["server", "mount"])
def test_when_one_is_killed_the_other_ends_too_and_it_is_said_why(home: Path, up: Up, victim: str) -> None:
    process = up()
    (home / "images" / "kept").write_bytes(b"data")
    both = children(process.pid)
    both[["server", "mount"].index(victim)].kill()
    assert process.wait() == 1
    assert process.log().splitlines()[-1] == f"glancefs: The {victim} was killed by SIGKILL."
    assert psutil.wait_procs(both, timeout=30)[1] == []
    assert mounted_at(home / "images") is None
    assert names(home) == {"kept"}


@pytest.mark.needs("fuse")
def test_ctrl_c_waits_for_what_is_under_way_and_a_second_one_does_not(home: Path, terminals: Terminals) -> None:
    terminal = terminals.open(command(home), cwd=home)
    port = port_of(terminal.wait_for(r"^  files ")[0])
    with upload(port, name="half", size=4 * MIB) as connection:
        connection.send(bytes(MIB))
        terminal.wait_for(r"^  ↑ half ")
        terminal.type(CTRL_C)
        terminal.wait_for(r"^ Ending; 1 transfer may still end\. Ctrl-C again ends at once$")
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            connection.getresponse()
    assert mounted_at(home / "images") is None
    assert names(home) == set()


@pytest.mark.needs("fuse")
def test_when_its_terminal_is_closed_what_is_under_way_still_ends_well(home: Path, terminals: Terminals) -> None:
    terminal = terminals.open(command(home), cwd=home)
    port = port_of(terminal.wait_for(r"^  files ")[0])
    both = children(terminal.process.pid)
    with upload(port, name="whole", size=2 * MIB) as connection:
        connection.send(bytes(MIB))
        terminal.wait_for(r"^  ↑ whole ")
        terminal.hang_up()
        eventually(lambda: mounted_at(home / "images") is None)
        connection.send(bytes(MIB))
        assert connection.getresponse().status == 201
    assert terminal.wait() == 0
    assert psutil.wait_procs(both, timeout=30)[1] == []
    assert names(home) == {"whole"}


def test_a_port_that_is_taken_is_said_in_one_line(home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        words = [*command(home), "--listen", f"127.0.0.1:{other.getsockname()[1]}"]
        ended = run(words, expect=2)
    assert "another program listens there already." in ended.err
    assert ended.err.count("\n") == 1
    assert not (home / "images").exists()


def test_a_data_folder_that_can_not_be_written_is_said_in_one_line(home: Path, terminals: Terminals) -> None:
    terminal = terminals.open([product(), "up", "--data", "/proc/glancefs", home / "images"], cwd=home)
    assert terminal.wait() in {1, 2, 5}
    assert terminal.text().startswith("glancefs: The registry's database /proc/glancefs/registry.sqlite can't be made")
    assert terminal.text().count("\n") == 1


def without_fuse(home: Path) -> dict[str, str]:
    """An environment in which the mount's package is missing."""
    folder = home / "packages"
    folder.mkdir()
    (folder / "pyfuse3.py").write_text("raise ImportError('there is no pyfuse3')\n")
    return {"PYTHONPATH": str(folder)}


def test_without_fuse_it_goes_on_without_the_mount(home: Path, processes: Processes) -> None:
    process = processes.start(command(home), env=without_fuse(home), cwd=home)
    process.wait_for_line(" Going on without the mount: .*there is no pyfuse3")
    add(port_of(process.log()), name="all the same", data=b"data")
    assert process.stop() == 0


@pytest.mark.needs("fuse")
def test_a_mount_that_is_there_is_left_alone_and_one_whose_owner_is_killed_ends(home: Path, up: Up) -> None:
    # What belongs to somebody else has the doors act as them.
    (home / "data").mkdir()
    if os.geteuid() == 0:
        os.chown(home / "data", 60001, 60001)
    first = up()
    second = up(ready=" Going on without the mount: .* is a mount of .* already")
    assert second.stop() == 0
    assert (home / "images" / ".glance" / "stats").is_file()
    both = children(first.pid)
    first.send(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert psutil.wait_procs(both, timeout=30)[1] == []
    assert mounted_at(home / "images") is None


def test_a_door_open_to_everybody_must_be_meant() -> None:
    ended = run([product(), "up", "--data", "/nowhere", "--listen", "0.0.0.0:0"], expect=2)
    assert "everybody would be admin" in ended.err
