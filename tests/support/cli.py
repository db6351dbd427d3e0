# SPDX-License-Identifier: Apache-2.0
"""The command line for the tests: run in this process, in one of its own, or on a terminal of its own.

Answers for the fixtures `served` (a server in this process on a data folder), `cli` (commands on a data folder) and
`anywhere` (the same commands, once on a folder and once on a server). Asserts nothing.

Threading: used by the main thread; a server answers in threads of its own.
"""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.assembly import make_application, make_metrics
from gateway.server import Server
from glancefs.assembly import assemble
from glancefs.cli import main
from glancefs.config import Config
from tests.support.processes import environment, product

SECONDS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a command did."""

    status: int
    stdout: bytes
    err: str

    @property
    def out(self) -> str:
        """Standard output as text."""
        return self.stdout.decode()

    @property
    def rows(self) -> list[list[str]]:
        """The lines of a table."""
        return [line.split("\t") for line in self.out.splitlines()]


@dataclass(slots=True, kw_only=True)
class Cli:
    """Commands with options that say where the images are."""

    where: tuple[str, ...]
    capture: pytest.CaptureFixture[bytes]
    monkeypatch: pytest.MonkeyPatch
    env: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str | os.PathLike[str], stdin: bytes = b"", expect: int | None = 0) -> Ran:
        """Run a command in this process."""
        self.capture.readouterr()
        with self.monkeypatch.context() as patch:
            for name, value in self.env.items():
                patch.setenv(name, value)
            reading, writing = os.pipe()
            with os.fdopen(reading) as pipe, os.fdopen(writing, "wb") as end:
                end.write(stdin)
                end.close()
                patch.setattr(sys, "stdin", pipe)
                status = main([*(os.fspath(word) for word in words), *self.where])
        out, err = self.capture.readouterr()
        ran = Ran(status=status, stdout=out, err=err.decode())
        if expect is not None and status != expect:
            pytest.fail(f"exit status {status}, not {expect}: {' '.join(map(str, words))}\n{ran.err}", pytrace=False)
        return ran


def on_terminal(*words: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run the installed command with all of its streams on a terminal of 80 columns; give its status and its text."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [product(), *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment({"TERM": "xterm", "COLUMNS": "80"} | dict(env or {})),
        )
    finally:
        os.close(theirs)
    text = io.BytesIO()
    try:
        while piece := os.read(ours, 65_536):
            text.write(piece)
    except OSError:
        # The other end is closed: Linux says it with EIO.
        pass
    finally:
        os.close(ours)
    return process.wait(SECONDS), text.getvalue().decode().replace("\r\n", "\n")


ServeFolder = Callable[..., str]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServeFolder]:
    """Serve a data folder: ``served(folder, {"auth.mode": ...})`` gives the URL; it is stopped after the test."""
    running: list[tuple[Server, Any]] = []

    def serve(folder: Path, said: Mapping[str, object] | None = None) -> str:
        config = Config.at(folder, said)
        core = assemble(config, migrate=True)
        metrics = make_metrics(config.gateway)
        server = Server(
            app_factory=lambda: make_application(core, metrics=metrics),
            listen="127.0.0.1:0",
            tls_cert=config.gateway.tls_cert,
            tls_key=config.gateway.tls_key,
            shutdown_timeout=5.0,
        )
        running.append((server, core))
        server.start()
        return server.url

    yield serve
    for server, core in reversed(running):
        server.stop()
        core.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of nobody, and a working folder, so that no configuration of this machine counts."""
    for name in [name for name in os.environ if name.startswith(("GLANCEFS_", "XDG_"))]:
        monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def cli(home: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Commands on a data folder that has a registry."""
    cli = Cli(where=("--data", str(home / "data")), capture=capfdbinary, monkeypatch=monkeypatch)
    cli("db", "upgrade")
    return cli


@pytest.fixture(params=["folder", "server"])
def anywhere(request: pytest.FixtureRequest, cli: Cli, home: Path, served: ServeFolder) -> Cli:
    """Commands on a data folder, and then the same on a server."""
    if request.param == "server":
        cli.where = ("--url", served(home / "data"))
    return cli
