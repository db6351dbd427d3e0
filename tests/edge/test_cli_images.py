# SPDX-License-Identifier: Apache-2.0
"""Commands on images: the same on a data folder and on a server.

Threading: none.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.support.cli import Cli, ServeFolder

DATA = b"an image" * 1000


def write(name: str, data: bytes = DATA) -> Path:
    file = Path(name)
    file.write_bytes(data)
    return file


def test_what_is_added_is_listed_shown_got_and_removed(anywhere: Cli) -> None:
    write("disk")
    assert anywhere("add", "disk", "--public").out == "1: disk (raw, 7.8 KiB)\n"
    created = anywhere("list").rows[0][7]
    assert anywhere("list").rows == [["1", "disk", "raw", "8000", "available", "public", "local", created]]
    shown = dict(anywhere("show", "disk").rows)
    assert shown["checksum"] == f"sha256:{hashlib.sha256(DATA).hexdigest()}"
    assert anywhere("get", "disk", "-o", "copy").err == ""
    assert Path("copy").read_bytes() == DATA
    assert anywhere("rm", "disk").out == ""
    assert anywhere("list").rows == []


def test_json_says_the_same_everywhere(anywhere: Cli) -> None:
    write("disk")
    added = json.loads(
        anywhere(
            *("add", "disk", "--json", "--id", "mine", "--type", "machine", "--property", "Os-Name=x y"),
            *("--disk-format", "qcow2", "--min-ram", "512", "--protected"),
        ).out
    )
    (image,) = json.loads(anywhere("list", "--json").out)
    assert added == [image] == [json.loads(anywhere("show", "mine", "--json").out)]
    times = {image.pop("created_at"), image.pop("updated_at")}
    assert len(times) == 1
    assert image == {
        "id": "mine",
        "name": "disk",
        "type": "machine",
        "status": "available",
        "size": 8000,
        "checksum": f"sha256:{hashlib.sha256(DATA).hexdigest()}",
        "store": "file",
        "owner": "local",
        "is_public": False,
        "protected": True,
        "disk_format": "qcow2",
        "container_format": None,
        "virtual_size": None,
        "min_disk": None,
        "min_ram": 512,
        "properties": {"os_name": "x y"},
    }
    assert json.loads(anywhere("set", "mine", "--unprotected", "--json").out)["protected"] is False
    assert json.loads(anywhere("rm", "mine", "--json").out) == ["mine"]
    assert json.loads(anywhere("list", "--json").out) == []


def test_several_files_and_quiet_identifiers(anywhere: Cli) -> None:
    write("one")
    write("two")
    assert anywhere("add", "-q", "one", "two").out == "1\n2\n"
    assert anywhere("add", "--name", "both", "one", "two", expect=2).err.startswith("glancefs: --name is said for one")


def test_standard_input_and_output(anywhere: Cli) -> None:
    big = DATA * 400
    assert anywhere("add", "-", "--name", "piped", "-q", stdin=b"").out == "1\n"
    assert anywhere("add", "-", "--name", "big", "-q", stdin=big[:60_000]).out == "2\n"
    assert anywhere("get", "big", "-o", "-").stdout == big[:60_000]
    assert anywhere("get", "piped", "-o", "-").stdout == b""
    assert "say --name" in anywhere("add", "-", expect=2).err


@pytest.mark.needs("netboot")
def test_types_are_told_by_the_first_bytes(anywhere: Cli, netboot_kernel: Path, netboot_initrd: Path) -> None:
    anywhere("add", netboot_kernel, netboot_initrd)
    anywhere("add", netboot_kernel, "--type", "raw", "--name", "called raw")
    assert [row[1:4] for row in anywhere("list", "--sort", "id").rows] == [
        ["linux", "kernel", str(netboot_kernel.stat().st_size)],
        ["initrd.gz", "ramdisk", str(netboot_initrd.stat().st_size)],
        ["called raw", "raw", str(netboot_kernel.stat().st_size)],
    ]
    anywhere("get", "initrd.gz")
    assert Path("initrd.gz").read_bytes() == netboot_initrd.read_bytes()


def test_queued_images_take_their_data_later(anywhere: Cli) -> None:
    write("disk")
    assert anywhere("add", "--name", "later", "--type", "machine").out == "1: later (machine, waits for its data)\n"
    assert "has no data" in anywhere("get", "later", expect=3).err
    assert anywhere("upload", "later", "disk").out == "1: later (machine, 7.8 KiB)\n"
    assert anywhere("get", "1", "-o", "-").stdout == DATA
    assert "data never change" in anywhere("upload", "later", "disk", expect=1).err


def test_metadata_are_changed_and_properties_dropped(anywhere: Cli) -> None:
    write("disk")
    anywhere("add", "disk", "--property", "a=1", "--property", "b=2", "--min-disk", "3")
    anywhere("set", "1", "--name", "new/name", "--public", "--property", "c=x=y", "--remove-property", "A")
    image = json.loads(anywhere("show", "new/name", "--json").out)
    assert (image["name"], image["is_public"], image["min_disk"]) == ("new/name", True, 3)
    assert image["properties"] == {"b": "2", "c": "x=y"}
    anywhere("set", "1", "--purge-properties", "--property", "d=4")
    assert json.loads(anywhere("show", "1", "--json").out)["properties"] == {"d": "4"}


def test_lists_are_narrowed_and_ordered(anywhere: Cli) -> None:
    for number, name in enumerate(["c", "a", "b"]):
        write(name, b"x" * (number + 1))
        anywhere("add", name, "--property", f"n={number}", "--public" if name == "a" else "--private")

    def names(*options: str) -> list[str]:
        return [row[1] for row in anywhere("list", *options).rows]

    assert names() == ["b", "a", "c"]
    assert names("--reverse") == ["c", "a", "b"]
    assert names("--sort", "name") == ["a", "b", "c"]
    assert names("--sort", "size", "--reverse") == ["b", "a", "c"]
    assert names("--limit", "2") == ["b", "a"]
    assert names("--public") == ["a"]
    assert names("--private") == ["b", "c"]
    assert names("--name", "c") == ["c"]
    assert names("--property", "N=1") == ["a"]
    assert names("--type", "machine") == []
    assert names("--status", "available", "--owner", "local") == ["b", "a", "c"]


def test_names_that_several_images_have_are_not_guessed(anywhere: Cli) -> None:
    write("disk")
    anywhere("add", "disk")
    anywhere("add", "disk")
    assert anywhere("show", "disk", expect=2).err == (
        "glancefs: Several images are called 'disk'; say which by its id: 2, 1.\n"
    )
    assert anywhere("show", "nothing", expect=3).err == (
        "glancefs: There is no image with the id or the name 'nothing'.\n"
    )
    assert "no image" in anywhere("rm", "1", "nothing", expect=3).err
    assert len(anywhere("list").rows) == 2


def test_an_identifier_comes_before_a_name(anywhere: Cli) -> None:
    write("disk")
    anywhere("add", "disk", "--name", "2")
    anywhere("add", "disk", "--name", "two")
    assert dict(anywhere("show", "2").rows)["name"] == "two"


def test_names_steer_no_terminal_and_break_no_line(anywhere: Cli) -> None:
    write("disk")
    evil = "a\x1b[31m\tb\nc\u202e"
    anywhere("add", "disk", "--name", evil, "--property", f"k={evil}")
    assert anywhere("list").rows[0][1] == "a\\x1b[31m\\tb\\nc\\u202e"
    assert dict(anywhere("show", "1").rows)["property k"] == "a\\x1b[31m\\tb\\nc\\u202e"
    assert json.loads(anywhere("show", "1", "--json").out)["name"] == evil
    assert "\x1b" not in anywhere("show", f"{evil}!", expect=3).err
    anywhere("get", "1")
    assert Path("a\\x1b[31m\\tb\\nc\\u202e").read_bytes() == DATA


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", ".evil", "-evil", "evil"])
def test_a_name_leads_nowhere_else_and_hides_no_file(cli: Cli, home: Path, name: str) -> None:
    write("disk")
    cli("add", "disk", "--name", name)
    cli("get", "1")
    assert (home / "evil").read_bytes() == DATA


@pytest.mark.parametrize("name", ["..", "a/", "..."])
def test_a_name_that_is_no_files_gives_way_to_the_identifier(cli: Cli, home: Path, name: str) -> None:
    write("disk")
    cli("add", "disk", "--name", name)
    cli("get", "1")
    assert (home / "1").read_bytes() == DATA


def test_images_own_names_replace_no_file_and_said_ones_do(anywhere: Cli) -> None:
    write("disk")
    anywhere("add", "disk")
    write("disk", b"precious")
    assert anywhere("get", "disk", expect=1).err.endswith("disk: is here already; say -o FILE to replace it\n")
    assert Path("disk").read_bytes() == b"precious"
    anywhere("get", "disk", "-o", "disk")
    assert Path("disk").read_bytes() == DATA
    Path("folder").mkdir()
    anywhere("get", "disk", "-o", "folder")
    assert Path("folder/disk").read_bytes() == DATA
    anywhere("get", "disk", "-o", "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_an_interrupted_get_goes_on_where_it_ended(anywhere: Cli) -> None:
    data = bytes(3 << 20) + DATA
    write("disk", data)
    anywhere("add", "disk")
    write("copy.part", data[:1_000_000])
    anywhere("get", "disk", "-o", "copy")
    assert Path("copy").read_bytes() == data
    assert not Path("copy.part").exists()


@pytest.mark.parametrize("rest", [b"of another image", DATA * 1000, DATA])
def test_a_part_that_does_not_fit_is_got_anew(anywhere: Cli, rest: bytes) -> None:
    write("disk")
    anywhere("add", "disk")
    write("copy.part", rest)
    anywhere("get", "disk", "-o", "copy")
    assert Path("copy").read_bytes() == DATA


def test_holes_take_no_room(cli: Cli) -> None:
    with Path("disk").open("wb") as disk:
        disk.write(DATA)
        disk.truncate(64 << 20)
    cli("add", "disk")
    cli("get", "disk", "-o", "copy")
    copy = Path("copy")
    assert copy.stat().st_size == 64 << 20
    assert copy.stat().st_blocks * 512 < 4 << 20
    assert copy.read_bytes().rstrip(b"\0") == DATA


def test_damaged_data_are_not_handed_out(cli: Cli, home: Path) -> None:
    write("disk")
    cli("add", "disk")
    (stored,) = (file for file in (home / "data/images").rglob("*") if file.is_file() and file.stat().st_size == 8000)
    stored.write_bytes(b"!" + DATA[1:])
    assert "checksum" in cli("get", "disk", "-o", "copy", expect=1).err
    assert not Path("copy").exists()
    assert not Path("copy.part").exists()
    assert "checksum" in cli("get", "disk", "-o", "-", expect=1).err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["add", "missing"], 1, "missing: No such file or directory"),
        (["add", "."], 1, ".: Is a directory"),
        (["add", "disk", "--type", "floppy"], 2, "'floppy' is not one of"),
        (["add", "disk", "--id", "a b"], 2, "'a b' can't be the id of an image"),
        (["add", "disk", "--store", "attic"], 2, "no store 'attic'"),
        (["add", "disk", "--property", "x"], 2, "'x' is no property"),
        (["add", "disk", "--property", "x=1", "--property", "x=2"], 2, "'x' is said twice"),
        (["add", "disk", "--checksum", "sha256:" + "0" * 64], 1, "checksum"),
        (["add", "disk", "--id", "taken"], 1, "taken"),
        (["add", "--name", "x"], 2, "say --type"),
        (["rm", "protected"], 4, "protected"),
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["list", "--limit", "x"], 2, "is not a valid integer"),
        (["show"], 2, "Missing argument"),
    ],
)
def test_failures_are_one_line_and_a_status(anywhere: Cli, words: list[str], status: int, said: str) -> None:
    write("disk")
    anywhere("add", "disk", "--id", "taken")
    anywhere("add", "disk", "--id", "protected", "--protected")
    ran = anywhere(*words, expect=status)
    assert said in ran.err
    assert ran.err.startswith("glancefs: ")
    assert ran.err.count("\n") == 1
    assert ran.out == ""


def test_a_server_that_is_not_there_is_one_line(cli: Cli) -> None:
    cli.where = ("--url", "http://127.0.0.1:1")
    assert cli("list", expect=5).err == "glancefs: http://127.0.0.1:1 can't be reached: Connection refused.\n"


def test_a_folder_without_a_registry_says_what_makes_one(cli: Cli, home: Path) -> None:
    cli.where = ("--data", str(home / "fresh"))
    assert "`glancefs db upgrade` makes it" in cli("list", expect=2).err
    write("disk")
    cli("add", "disk")
    assert len(cli("list").rows) == 1


def test_users_are_known_by_the_environment_or_netrc(cli: Cli, home: Path, served: ServeFolder) -> None:
    cli("user", "add", "ann", "--password-stdin", stdin=b"secret\n")
    cli.where = ("--url", served(home / "data", {"auth.mode": "htpasswd"}))
    write("disk")
    assert "log in" in cli("add", "disk", expect=4).err
    cli.env = {"GLANCEFS_USER": "ann", "GLANCEFS_PASSWORD": "wrong"}
    assert "wrong" in cli("list", expect=4).err
    cli.env = {"GLANCEFS_USER": "ann", "GLANCEFS_PASSWORD": "secret"}
    cli("add", "disk")
    assert cli("list").rows[0][6] == "ann"
    cli.env = {}
    assert cli("list").rows == []
    netrc = home / ".netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    netrc.chmod(0o600)
    assert cli("list").rows[0][6] == "ann"
    netrc.chmod(0o644)
    assert "permissive" in cli("list", expect=2).err


def test_the_line_is_closer_than_the_environment(cli: Cli, served: ServeFolder, home: Path) -> None:
    write("disk")
    cli("add", "disk")
    cli.env = {"GLANCEFS_URL": "http://127.0.0.1:1"}
    assert len(cli("list").rows) == 1
    cli.where = ()
    assert "127.0.0.1:1 can't be reached" in cli("list", expect=5).err
    cli.where = ("--url", served(home / "data"))
    assert len(cli("list").rows) == 1
    assert "say one" in cli("list", "--data", "x", expect=2).err
