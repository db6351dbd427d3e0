# SPDX-License-Identifier: Apache-2.0
"""Commands for who runs the place: upkeep, users, configuration, completion, and the server itself.

Threading: none.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import bcrypt
import pytest

from glancefs import __version__
from glancefs.assembly import STAGED
from glancefs.cli.htpasswd import Htpasswd
from glancefs.option_table import OPTIONS
from glancefs.staging import Staging
from tests.support.cli import Cli, ServeFolder, on_terminal
from tests.support.processes import Processes, environment, product, run
from tests.support.servers import start_server

DATA = b"an image" * 1000


@pytest.fixture
def stored(cli: Cli, home: Path) -> Path:
    """The file that holds the data of image 1."""
    Path("disk").write_bytes(DATA)
    cli("add", "disk")
    (file,) = (file for file in (home / "data/images").rglob("*") if file.is_file() and file.stat().st_size == 8000)
    return file


def test_check_finds_nothing_where_nothing_is_wrong(cli: Cli, stored: Path) -> None:
    ran = cli("check")
    assert (ran.out, ran.err) == ("", "1 images, 7.8 KiB: all well.\n")
    assert json.loads(cli("check", "--quick", "--json").out) == {"images": 1, "size": 8000, "findings": []}


def test_check_tells_what_is_damaged(cli: Cli, stored: Path) -> None:
    stored.write_bytes(b"!" + DATA[1:])
    assert cli("check", "--quick").out == ""
    ran = cli("check", expect=1)
    assert ran.rows[0][:3] == ["1", "disk", "checksum"]
    assert ran.err == "1 images, 7.8 KiB: 1 of them damaged.\n"
    stored.unlink()
    (finding,) = json.loads(cli("check", "--quick", "--json", expect=1).out)["findings"]
    assert (finding["image_id"], finding["what"]) == ("1", "missing")


def test_gc_removes_what_no_image_names(cli: Cli, stored: Path) -> None:
    orphan = stored.with_name("0" * len(stored.name))
    orphan.write_bytes(b"left over")
    same_folder = orphan.parent.name == orphan.name[: len(orphan.parent.name)]
    swept = json.loads(cli("gc", "--json").out)
    assert swept["orphans"] == int(same_folder)
    assert cli("gc").out == "Removed 0 abandoned uploads and 0 orphans, 0 B in all.\n"
    assert stored.read_bytes() == DATA


def test_gc_removes_what_dead_mounts_left_and_nobody_wants(cli: Cli, stored: Path) -> None:
    folder = stored.parent.parent / "incoming" / STAGED
    left = Staging(folder=folder, user="alice")
    old, young = left.create("old"), left.create("young")
    old.write_at(0, DATA)
    young.write_at(0, DATA)
    os.utime(next(folder.glob(f"*/{old.key}")), (0, 0))
    assert json.loads(cli("gc", "--json").out)["staged"] == 0
    left.close()
    assert "1 of the files that mounts had left were too old" in cli("gc").out
    assert [path.name for path in folder.glob("*/*.json")] == [f"{young.key}.json"]


def test_the_registry_is_made_once(cli: Cli, home: Path) -> None:
    assert cli("db", "upgrade").out == "The registry was up to date.\n"
    cli.where = ("--data", str(home / "other"))
    assert json.loads(cli("db", "upgrade", "--json").out) == {"upgraded": True}
    assert json.loads(cli("db", "upgrade", "--json").out) == {"upgraded": False}


def test_a_database_that_is_something_else_is_refused(cli: Cli, home: Path) -> None:
    (home / "data/registry.sqlite").write_bytes(b"not a database" * 100)
    ran = cli("db", "upgrade", expect=None)
    assert ran.status in {2, 5}
    assert ran.err.count("\n") == 1


def test_users_are_added_changed_listed_and_removed(cli: Cli, home: Path) -> None:
    file = home / "data/htpasswd"
    assert cli("user", "add", "ann", "--password-stdin", stdin="gèheim\n".encode()).out == "User ann added.\n"
    assert cli("user", "add", "bob", "--password-stdin", stdin=b"b\n").out == "User bob added.\n"
    assert cli("user", "add", "bob", "--password-stdin", stdin=b"c").out == "User bob has another password.\n"
    cli.env = {"GLANCEFS_AUTH_ADMINS": "bob", "GLANCEFS_AUTH_MODE": "htpasswd"}
    assert cli("user", "list").rows == [["ann", ""], ["bob", "admin"]]
    assert json.loads(cli("user", "list", "--json").out)[1] == {"name": "bob", "is_admin": True}
    entries = dict(line.split(":", 1) for line in file.read_text().splitlines())
    assert bcrypt.checkpw("gèheim".encode(), entries["ann"].encode())
    assert bcrypt.checkpw(b"c", entries["bob"].encode())
    assert file.stat().st_mode & 0o777 == 0o600
    assert cli("user", "remove", "ann").out == "User ann removed.\n"
    assert "no user 'ann'" in cli("user", "remove", "ann", expect=3).err
    assert [path.name for path in file.parent.glob("*htpasswd*")] == ["htpasswd"]


@pytest.mark.parametrize(
    ("name", "password", "said"),
    [
        ("a:b", b"x", "name of a user"),
        ("", b"x", "name of a user"),
        ("#a", b"x", "name of a user"),
        ("a\nb", b"x", "name of a user"),
        ("a", b"", "not empty"),
        ("a", b"x" * 73, "72 bytes"),
        ("a", b"\xff", "not UTF-8"),
    ],
)
def test_what_can_be_no_user_is_refused(cli: Cli, name: str, password: bytes, said: str) -> None:
    ran = cli("user", "add", "--password-stdin", name, stdin=password, expect=None)
    assert ran.status in {1, 2}
    assert said in ran.err


def test_a_password_is_asked_for_on_a_terminal_alone(cli: Cli) -> None:
    assert "--password-stdin" in cli("user", "add", "ann", expect=2).err


def test_lines_of_others_stay_in_the_file_of_users(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_bytes(b"# ours\n\xff:$2y$05$x\nann:old\n")
    file = Htpasswd(path=path, cost=4)
    assert file.put("ann", "new") is False
    assert file.put("bob", "b") is True
    first, second, ann, bob = path.read_bytes().splitlines()
    assert (first, second) == (b"# ours", b"\xff:$2y$05$x")
    assert bcrypt.checkpw(b"new", ann.partition(b":")[2])
    assert bob.startswith(b"bob:$2b$04$")


def test_the_configuration_is_shown_with_where_it_is_from(cli: Cli, home: Path) -> None:
    file = home / "glancefs.toml"
    file.write_text("[gateway]\nworkers = 2\n")
    cli.env = {"GLANCEFS_GATEWAY_MAX_UPLOAD": "20G"}
    shown = json.loads(cli("config", "show", "--json", "--config", str(file)).out)
    assert list(shown) == [option.key for option in OPTIONS]
    assert shown["gateway.workers"] == {"value": "2", "from": f"{file}:2"}
    assert shown["gateway.max_upload"] == {"value": str(20 << 30), "from": "GLANCEFS_GATEWAY_MAX_UPLOAD"}
    assert shown["data"]["from"] == "command line"
    assert [row[0] for row in cli("config", "show").rows] == list(shown)


def test_a_configuration_that_is_wrong_is_one_line(cli: Cli, home: Path) -> None:
    file = home / "glancefs.toml"
    file.write_text("[gateway]\nworkrs = 2\n")
    assert cli("list", "--config", str(file), expect=2).err == (
        f"glancefs: {file}:2: gateway.workrs is no option; did you mean gateway.workers?\n"
    )


def test_shared_options_stand_in_front_of_a_command_or_behind_it(cli: Cli, home: Path) -> None:
    cli.where = ()
    assert cli("--data", str(home / "data"), "--json", "list").out == "[]\n"
    assert cli("list", "--data", str(home / "data"), "--json").out == "[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(cli: Cli, shell: str) -> None:
    cli.where = ()
    assert "_GLANCEFS_COMPLETE" in cli("completion", shell).out


def test_a_shell_completes_commands_and_options(home: Path) -> None:
    def completed(*words: str) -> list[str]:
        env = {"_GLANCEFS_COMPLETE": "bash_complete", "COMP_CWORD": str(len(words) - 1), "COMP_WORDS": " ".join(words)}
        return [line.partition(",")[2] for line in run([product()], env=env).out.splitlines()]

    assert completed("glancefs", "s") == ["serve", "show", "set"]
    assert completed("glancefs", "list", "--st") == ["--status"]
    assert completed("glancefs", "list", "--type", "k") == ["kernel"]


def test_the_version_and_the_help_are_told(cli: Cli) -> None:
    cli.where = ()
    assert cli("--version").out == f"glancefs {__version__}\n"
    assert "serve" in cli("--help").out
    assert run([product("glance-api"), "--help"]).out.startswith("Usage: glancefs serve")


def test_an_internal_error_has_no_traceback_unless_asked(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        message = "boom"
        raise RuntimeError(message)

    monkeypatch.setattr("glancefs.cli.output.Output.images", fail)
    ran = cli("list", expect=1)
    assert ran.err.startswith("glancefs: An error that nobody expected, RuntimeError: boom.")
    assert ran.err.count("\n") == 1
    assert "Traceback" in cli("list", "--debug", expect=1).err


def test_output_that_nobody_reads_ends_quietly(cli: Cli, home: Path) -> None:
    Path("disk").write_bytes(bytes(1 << 20))
    cli("add", "disk")
    reading, writing = os.pipe()
    os.close(reading)
    for words in (["get", "disk", "-o", "-"], ["list"], ["list", "--json"]):
        ended = subprocess.run(
            [product(), *words, "--data", home / "data"],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (141, b"")
    os.close(writing)


class HalfServer(http.server.BaseHTTPRequestHandler):
    """A server that sends the first half of its one image, and then nothing more until it is closed."""

    data = DATA * 200
    released = threading.Event()

    def _head(self) -> None:
        self.send_response(200)
        meta = {
            "id": "1",
            "name": "disk",
            "type": "raw",
            "status": "available",
            "size": str(len(self.data)),
            "is_public": "1",
        }
        times = {"created_at": "2010-02-03 09:34:01", "updated_at": "2010-02-03 09:34:01"}
        for name, value in (meta | times).items():
            self.send_header(f"x-image-meta-{name}", value)
        self.send_header("Content-Length", str(len(self.data)))
        self.end_headers()

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        self._head()
        self.wfile.write(self.data[: len(self.data) // 2])
        self.released.wait(60)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_control_c_ends_with_130_and_keeps_what_arrived(home: Path, processes: Processes) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), HalfServer) as server:
        answering = threading.Thread(target=server.serve_forever)
        answering.start()
        process = processes.start([product(), "get", "1", "--url", f"http://127.0.0.1:{server.server_port}"])
        part = home / "disk.part"
        while process.running and (not part.exists() or part.stat().st_size < len(HalfServer.data) // 3):
            time.sleep(0.02)
        process.send(signal.SIGINT)
        assert process.wait() == 130
        HalfServer.released.set()
        server.shutdown()
        answering.join()
    assert process.log().strip() == ""
    arrived = part.read_bytes()
    assert len(arrived) > len(HalfServer.data) // 3
    assert HalfServer.data.startswith(arrived)
    assert not (home / "disk").exists()


def test_a_terminal_gets_titles_human_sizes_and_colours(cli: Cli, home: Path) -> None:
    Path("disk").write_bytes(DATA)
    cli("add", "disk", "--name", "long " * 30 + "日本語", "--public")
    status, text = on_terminal("list", "--data", home / "data")
    head, line = text.splitlines()
    assert status == 0
    assert [word for word in head.split() if word.isupper()]
    assert "7.8 KiB" in line
    assert "…" in line
    assert "\x1b[32mpublic" in line
    assert "\x1b[32m" not in on_terminal("list", "--data", home / "data", env={"NO_COLOR": "1"})[1]
    assert "8000 bytes" in on_terminal("show", "1", "--data", home / "data")[1]


def test_transfers_show_how_far_they_are_on_a_terminal(
    cli: Cli, home: Path, served: ServeFolder, tmp_path: Path
) -> None:
    file = tmp_path / "disk"
    file.write_bytes(bytes(40 << 20))
    url = served(home / "data")
    for words in (["add", file, "--url", url], ["get", "1", "-o", "copy", "--url", url], ["check", "--data", "data"]):
        status, text = on_terminal(*words)
        assert status == 0, text
        assert "/40.0 MiB" in text
        assert "/s" in text
    assert Path("copy").stat().st_size == 40 << 20


def test_a_password_is_asked_for_twice(cli: Cli, home: Path) -> None:
    assert "--password-stdin" in cli("user", "add", "ann", expect=2).err
    assert Htpasswd(path=home / "data/htpasswd").names() == []


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "localhost.example:0"])
def test_an_open_door_without_a_lock_is_refused(cli: Cli, listen: str) -> None:
    ran = cli("serve", "--listen", listen, expect=2)
    assert "everybody would be admin" in ran.err
    assert ran.err.count("\n") == 1


def test_the_server_says_where_its_doors_are_and_stops_when_asked(cli: Cli, home: Path, processes: Processes) -> None:
    server = start_server(processes, home / "data")
    assert server.ask("GET", "/healthcheck").status == 200
    log = server.process.log()
    assert f"{server.url}/images/" in log
    assert "Everybody is the admin `local`" in log
    assert server.process.stop() == 0


def test_an_insecure_server_says_so(home: Path, processes: Processes) -> None:
    server = start_server(processes, home / "fresh", "--insecure", listen="0.0.0.0:0")
    assert "ANYBODY" in server.process.log()


def test_a_server_with_users_says_that_there_are_none(home: Path, processes: Processes) -> None:
    server = start_server(processes, home / "fresh", env={"GLANCEFS_AUTH_MODE": "htpasswd"})
    assert "glancefs user add NAME" in server.process.log()
    assert server.ask("POST", "/images/", {"x-image-meta-name": "a", "x-image-meta-type": "raw"}).status == 401


def test_an_address_that_is_taken_is_one_line(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = run([product(), "serve", "--data", home / "data", "--listen", listen], expect=2)
    assert "another program listens there" in ran.err
    assert ran.err.count("\n") == 1


def test_a_start_sweeps_what_dead_processes_left(home: Path, processes: Processes) -> None:
    data = home / "fresh"
    server = start_server(processes, data)
    metadata = {"x-image-meta-name": "a", "x-image-meta-type": "raw", "Content-Type": "application/octet-stream"}
    with socket.create_connection((server.host, server.port)) as upload:
        head = "".join(f"{name}: {value}\r\n" for name, value in metadata.items())
        upload.sendall(
            f"POST /images/ HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 9999999\r\n\r\n".encode() + DATA * 200
        )
        incoming = data / "images/incoming"
        while not any(incoming.iterdir()):
            pass
        server.process.kill()
    assert any(incoming.iterdir())
    start_server(processes, data)
    assert not any(incoming.iterdir())


def test_a_registry_is_copied_with_all_that_it_tells(cli: Cli, home: Path, stored: Path) -> None:
    here, there = home / "data/registry.sqlite", home / "copy.sqlite"
    (home / "to").write_text(f"sqlite:///{there}\n")
    cli.where = ()
    assert cli("db", "copy", f"sqlite:///{here}", f"@{home / 'to'}").out.startswith("Copied 1 images (")
    cli.where = ("--data", str(home / "data"))
    cli.env["GLANCEFS_REGISTRY"] = f"sqlite:///{there}"
    assert [row[:2] for row in cli("list").rows] == [["1", "disk"]]
    assert cli("check").status == 0


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://me:hu/s@h@host/name", "mysql+pymysql://me@host/name?password=hu/s@h"]
)
def test_no_password_is_taken_from_the_command_line_or_told(cli: Cli, url: str) -> None:
    cli.where = ()
    ran = cli("db", "copy", "sqlite:///a", url, expect=2)
    assert "@FILE" in ran.err
    assert "hu/s" not in ran.err + ran.out
    cli.env["GLANCEFS_REGISTRY"] = url
    shown = cli("config", "show").out
    assert "***" in shown
    assert "hu/s" not in shown
    assert "s@h" not in shown
