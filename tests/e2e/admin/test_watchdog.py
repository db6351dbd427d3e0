# SPDX-License-Identifier: Apache-2.0
"""What systemd hears of servers: that they are ready, and that they answer for as long as they do."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from glancefs.cli.watchdog import answers
from glancefs.config import watchdog_seconds
from tests.e2e.conftest import Serve
from tests.support.mounting import eventually
from tests.support.processes import Argument, Processes, product
from tests.support.servers import RunningServer


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd listens (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        yield listening


@pytest.mark.parametrize(
    "command",
    [
        ("serve", "--workers", "2"),
        ("registry",),
    ],
    ids=lambda command: command[0],
)
def test_systemd_hears_of_a_server_until_it_answers_no_more(
    command: tuple[str, ...], systemd: socket.socket, processes: Processes, tmp_path: Path
) -> None:
    words: list[Argument] = [product(), *command, "--data", tmp_path / "data", "--listen", "127.0.0.1:0"]
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
    server = processes.start(words, env=env)
    assert systemd.recv(100) == b"READY=1"
    assert [systemd.recv(100) for _ in range(2)] == [b"WATCHDOG=1"] * 2
    assert server.stop() == 0
    server.wait_for_line("/healthcheck")


def test_a_server_that_systemd_does_not_watch_is_not_watched(
    systemd: socket.socket, processes: Processes, tmp_path: Path
) -> None:
    words: list[Argument] = [product(), "serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0"]
    server = processes.start(words, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert systemd.recv(100) == b"READY=1"
    server.wait_for_line("glancefs .* at http")
    assert server.stop() == 0
    assert "/healthcheck" not in server.log()


def test_the_watching_ends_with_a_server_that_is_killed(
    systemd: socket.socket, processes: Processes, tmp_path: Path
) -> None:
    words: list[Argument] = [product(), "serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0"]
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
    server = processes.start(words, env=env)
    assert [systemd.recv(100) for _ in range(2)] == [b"READY=1", b"WATCHDOG=1"]
    server.send(signal.SIGKILL)
    # Once nobody holds the other end of the pipe, the process that watched is gone, and nothing is heard.
    eventually(lambda: not watchers(tmp_path))


def watchers(folder: Path) -> list[str]:
    """The processes that tell systemd's address in this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_text()
        except OSError:
            continue
        if "glancefs.cli.watchdog" in words and str(folder) in words:
            found.append(words)
    return found


def test_every_kind_of_address_is_asked(server: RunningServer, tls_server: RunningServer, serve: Serve) -> None:
    assert answers(server.url, patience=30)
    assert answers(tls_server.url, patience=30)


def test_who_listens_and_says_nothing_does_not_answer(tmp_path: Path) -> None:
    for kind, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, str(tmp_path / "socket"))):
        with socket.socket(kind) as listening:
            listening.bind(address)
            listening.listen()
            name = listening.getsockname()
            url = f"unix:{name}" if kind == socket.AF_UNIX else f"http://127.0.0.1:{name[1]}"
            assert not answers(url, patience=0.2)
        assert not answers(url, patience=0.2)


def test_only_the_process_that_systemd_means_is_watched() -> None:
    assert watchdog_seconds({"WATCHDOG_USEC": "60000000"}) == 60.0
    assert watchdog_seconds({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_seconds({}) is None
