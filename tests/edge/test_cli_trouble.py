# SPDX-License-Identifier: Apache-2.0
"""Commands in the hands of unlucky people: files that change, folders of others, full disks, signals.

Threading: none of its own.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Cli, on_terminal
from tests.support.mounting import eventually
from tests.support.mounts import mounted
from tests.support.processes import Processes, product

DATA = b"an image" * 1000
MIB = 1 << 20


def incoming(home: Path) -> list[Path]:
    return list((home / "data/images").glob("incoming/*"))


@pytest.mark.parametrize("words", [[], ["db"], ["user"], ["config"]])
def test_a_command_that_is_none_yet_tells_which_there_are(cli: Cli, words: list[str]) -> None:
    cli.where = ()
    ran = cli(*words, expect=2)
    assert ran.err.startswith(f"Usage: {' '.join(['glancefs', *words])} [OPTIONS] COMMAND")
    assert "\nCommands:\n" in ran.err


@pytest.fixture
def changing(home: Path) -> Iterator[Path]:
    """A file that grows and grows."""
    file = Path("changing")
    file.write_bytes(bytes(32 * MIB))
    going_on = threading.Event()

    def change() -> None:
        while not going_on.wait(0.001):
            os.truncate(file, file.stat().st_size + MIB)

    thread = threading.Thread(target=change)
    thread.start()
    yield file
    going_on.set()
    thread.join()


def test_a_file_that_grows_while_it_is_added_is_no_image(anywhere: Cli, changing: Path, home: Path) -> None:
    ran = anywhere("add", changing, expect=1)
    assert ran.err.startswith("glancefs: The data ")
    assert ran.err.count("\n") == 1
    assert anywhere("list").rows == []
    # The command ends when it knows better; a server has still to see that nobody sends any more.
    eventually(lambda: incoming(home) == [])


def test_an_empty_name_is_no_name(anywhere: Cli) -> None:
    Path("disk").write_bytes(DATA)
    assert "An empty name is none." in anywhere("add", "disk", "--name", "", expect=2).err
    assert anywhere("list").rows == []
    anywhere("add", "disk")
    assert "An empty name is none." in anywhere("set", "disk", "--name", "", expect=2).err
    assert anywhere("list").rows[0][1] == "disk"


@pytest.mark.parametrize("name", ["x" * 251, "é" * 200, "a/" + "\N{GRINNING FACE}" * 100])
def test_a_name_that_is_too_long_for_a_file_gives_way_to_the_identifier(cli: Cli, name: str) -> None:
    Path("disk").write_bytes(DATA)
    cli("add", "disk", "--name", name)
    cli("get", "1")
    assert Path("1").read_bytes() == DATA


def test_a_name_of_the_greatest_length_is_kept(cli: Cli) -> None:
    Path("disk").write_bytes(DATA)
    cli("add", "disk", "--name", "x" * 250)
    cli("get", "1")
    assert Path("x" * 250).read_bytes() == DATA


def test_nothing_that_lies_in_the_place_of_a_part_is_followed_or_waited_for(cli: Cli) -> None:
    Path("disk").write_bytes(DATA)
    cli("add", "disk")
    Path("precious").write_bytes(b"precious")
    part = Path("copy.part")
    part.symlink_to("precious")
    assert cli("get", "disk", "-o", "copy", expect=1).err.endswith("copy.part: is no regular file; remove it\n")
    assert Path("precious").read_bytes() == b"precious"
    part.unlink()
    os.mkfifo(part)
    assert cli("get", "disk", "-o", "copy", expect=1).err.endswith("copy.part: is no regular file; remove it\n")
    part.unlink()
    part.mkdir()
    assert "Is a directory" in cli("get", "disk", "-o", "copy", expect=1).err
    assert not Path("copy").exists()


def test_a_folder_that_is_not_there_is_not_taken_for_a_file(cli: Cli) -> None:
    Path("disk").write_bytes(DATA)
    cli("add", "disk")
    assert cli("get", "disk", "-o", "folder/", expect=1).err == "glancefs: folder/: Not a directory\n"
    assert not Path("folder").exists()


@pytest.mark.needs("root")
def test_a_full_disk_is_named_and_what_arrived_stays(anywhere: Cli, home: Path) -> None:
    Path("disk").write_bytes(os.urandom(4 * MIB))
    anywhere("add", "disk")
    with mounted(home, kind="tmpfs", size=MIB) as place:
        err = anywhere("get", "disk", "-o", place / "copy", expect=1).err
        assert err == f"glancefs: {place / 'copy.part'}: No space left on device\n"
        assert (place / "copy.part").stat().st_size == MIB


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_half_added(cli: Cli, home: Path, processes: Processes, number: signal.Signals) -> None:
    os.mkfifo("endless")
    process = processes.start([product(), "add", "endless", "--data", home / "data"], cwd=home)
    with Path("endless").open("wb", buffering=0) as pipe:
        pipe.write(bytes(MIB))
        process.send(number)
        assert process.wait() == 128 + number
    assert incoming(home) == []
    assert cli("list").rows == []


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://127.0.0.1:99999", "http://me:secret@127.0.0.1:1"])
def test_a_url_that_is_none_is_a_mistake_of_the_user(cli: Cli, url: str) -> None:
    cli.where = ("--url", url)
    assert "URL of a server" in cli("list", expect=2).err


def test_trusted_certificates_that_are_not_there_are_named(cli: Cli) -> None:
    cli.where = ("--url", "https://127.0.0.1:1")
    cli.env = {"GLANCEFS_CACERT": "/nowhere/ca.pem"}
    assert cli("list", expect=2).err == (
        "glancefs: The file of trusted certificates /nowhere/ca.pem can't be read: No such file or directory.\n"
    )


def test_help_is_shown_on_a_terminal_as_it_is(cli: Cli) -> None:
    del cli
    status, text = on_terminal()
    assert status == 2
    assert "\nCommands:\n  serve " in text
