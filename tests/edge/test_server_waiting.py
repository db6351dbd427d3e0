# SPDX-License-Identifier: Apache-2.0
"""Requests that wait for news in this process: when they are answered, and that they are answered once."""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.edge.conftest import Serve
from tests.support.certificates import self_signed

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Waiting:
    """An application that answers with how often it was asked, and waits until there is news."""

    def __init__(self, *, seconds: float = 30, rings_at_once: bool = False) -> None:
        self.asked = 0
        self.has_news = False
        self.bells: list[Any] = []
        self.waits = threading.Semaphore(0)
        self.fails = False
        self._seconds = seconds
        self._rings_at_once = rings_at_once

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.asked += 1
        postpone = environ.get("glancefs.postpone")
        if not self.has_news and postpone is not None:
            bell = postpone(self._seconds)
            if self.fails:
                raise RuntimeError("on purpose")
            self.bells.append(bell)
            if self._rings_at_once:
                self.has_news = True
                bell.ring()
            self.waits.release()
        start_response("200 OK", [])
        return [str(self.asked).encode()]


@pytest.fixture(params=["plain", "tls"])
def certificate(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return self_signed(tmp_path) if request.param == "tls" else None


def test_a_bell_has_a_request_answered_anew(serve: Serve, certificate: Path | None) -> None:
    app = Waiting()
    with serve(app, tls_cert=certificate).connect() as client:
        client.send(GET)
        app.waits.acquire()
        # In vain: there is nothing new, so it goes on waiting for a bell of its own.
        app.bells[0].ring()
        app.waits.acquire()
        assert not app.bells[0].is_wanted
        app.has_news = True
        app.bells[0].ring()
        app.bells[1].ring()
        app.bells[1].ring()
        assert client.answer().body == b"3"
        assert not app.bells[1].is_wanted
        # The connection serves on, and nothing was answered twice.
        assert client.ask(GET).body == b"4"


def test_a_bell_that_rings_before_the_request_waits_is_heard(serve: Serve) -> None:
    app = Waiting(rings_at_once=True)
    with serve(app).connect() as client:
        for _ in range(20):
            app.has_news = False
            assert client.ask(GET).status == 200
    assert app.asked == 40


def test_a_request_waits_no_longer_than_was_said(serve: Serve) -> None:
    app = Waiting(seconds=0.3)
    with serve(app).connect() as client:
        assert client.ask(GET).body == b"2"
        assert client.ask(GET).body == b"4"


def test_one_that_fails_while_it_waits_is_told_so(serve: Serve, expect_log: Any) -> None:
    expect_log("the application failed")
    app = Waiting()
    app.fails = True
    with serve(app).connect() as client:
        assert client.ask(GET).status == 500


def test_a_request_with_a_body_does_not_wait(serve: Serve) -> None:
    app = Waiting()
    with serve(app).connect() as client:
        assert client.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab").body == b"1"
    assert app.bells == []


def test_questions_in_json_are_no_transfers(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [b""]

    served = serve(app)
    with served.connect() as client:
        for kind in (b"application/json", b"application/octet-stream"):
            assert client.ask(
                b"POST /" + kind + b" HTTP/1.1\r\nHost: x\r\nContent-Type: " + kind + b"\r\nContent-Length: 2\r\n\r\n{}"
            ).status
    ended: list[str] = []
    deadline = time.monotonic() + 60
    # It is noted behind the answer.
    while not ended and time.monotonic() < deadline:
        ended += [transfer.name for transfer in served.engine.sample().ended]
        time.sleep(0.01)
    assert ended == ["/application/octet-stream"]
