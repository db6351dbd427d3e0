# SPDX-License-Identifier: Apache-2.0
"""Signals and processes: what is under way is finished, what is cut fails, and nothing hangs."""

import os
import signal
import sys
import threading
from collections.abc import Iterable
from typing import Any

import psutil
import pytest

from glancefs.errors import UploadTruncated
from tests.edge.conftest import Serve
from tests.support.processes import PATIENCE, Process, Processes
from tests.support.rawhttp import RawClient

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LATE = b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n"
UPLOAD = b"PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
CHUNKED = b"PUT /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

BOTH = pytest.mark.parametrize("workers", [1, 2])


def started(
    processes: Processes, *prefix: str, workers: int = 1, timeout: float = PATIENCE
) -> tuple[Process, tuple[str, int]]:
    """Start a server in a process of its own, by way of another command if one is said; gives it and where it is."""
    command = [*prefix, sys.executable, "-m", "tests.support.doorway", "127.0.0.1:0", str(workers), str(timeout)]
    process = processes.start(command)
    port = process.wait_for_line(r"^ready http://127\.0\.0\.1:(\d+)$")[1]
    return process, ("127.0.0.1", int(port))


@BOTH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_an_idle_server_with_status_0(processes: Processes, workers: int, number: signal.Signals) -> None:
    process, target = started(processes, workers=workers)
    with RawClient(target) as kept:
        assert kept.ask(GET).status == 200
        process.send(number)
        assert process.wait() == 0
        assert kept.rest() == b""
    assert len([line for line in process.log().splitlines() if line.startswith("exit of ")]) == workers


@BOTH
def test_a_closed_terminal_does_not_end_what_nohup_started(processes: Processes, workers: int) -> None:
    process, target = started(processes, "nohup", workers=workers)
    process.send(signal.SIGHUP)
    with RawClient(target) as client:
        assert client.ask(GET).status == 200
    process.send(signal.SIGTERM)
    assert process.wait() == 0


@BOTH
def test_a_terminal_that_is_closed_lets_what_is_under_way_finish(processes: Processes, workers: int) -> None:
    process, target = started(processes, workers=workers)
    with RawClient(target) as upload:
        upload.send(UPLOAD)
        process.wait_for_line("^begun$")
        # As terminals do: to everybody, and more than once.
        for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children()] * 2:
            one.send_signal(signal.SIGHUP)
        wait_until_refused(target)
        upload.send(bytes(1_000_000))
        assert upload.answer().status == 201
    assert process.wait() == 0


@BOTH
def test_what_is_under_way_is_finished(processes: Processes, workers: int) -> None:
    process, target = started(processes, workers=workers)
    with RawClient(target) as late, RawClient(target) as upload:
        late.send(LATE)
        upload.send(UPLOAD + bytes(10))
        process.wait_for_line("^begun$")
        process.send(signal.SIGTERM)
        wait_until_refused(target)
        upload.send(bytes(1_000_000 - 10))
        answer = upload.answer()
        assert (answer.status, answer.body, answer.closes) == (201, b"1000000", True)
        answer = late.answer()
        assert answer.status == 200
    assert process.wait() == 0


@BOTH
@pytest.mark.parametrize("request_data", [UPLOAD + bytes(400_000), CHUNKED + b"10\r\n" + bytes(16) + b"\r\n"])
def test_an_upload_that_is_cut_is_an_error_and_never_a_short_success(
    processes: Processes, workers: int, request_data: bytes
) -> None:
    process, target = started(processes, workers=workers, timeout=0.3)
    with RawClient(target) as upload:
        upload.send(request_data)
        process.wait_for_line("^begun$")
        process.send(signal.SIGTERM)
        assert process.wait() == 0
        assert b"201" not in upload.rest()
    assert "truncated" in process.log()
    assert "took" not in process.log()


def test_a_second_signal_ends_the_server_at_once(processes: Processes) -> None:
    process, target = started(processes, timeout=PATIENCE)
    with RawClient(target) as upload:
        upload.send(UPLOAD)
        process.wait_for_line("^begun$")
        process.send(signal.SIGTERM)
        wait_until_refused(target)
        process.send(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM


def test_a_second_signal_ends_all_workers_at_once(processes: Processes) -> None:
    process, target = started(processes, workers=2, timeout=PATIENCE)
    children = psutil.Process(process.pid).children()
    with RawClient(target) as upload:
        upload.send(UPLOAD)
        process.wait_for_line("^begun$")
        process.send(signal.SIGINT)
        wait_until_refused(target)
        process.send(signal.SIGINT)
        assert process.wait() == 128 + signal.SIGINT
    gone, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert (len(gone), alive) == (2, [])


def test_a_slow_reader_does_not_hold_up_the_stop(serve: Serve, expect_log: Any) -> None:
    expect_log("cutting 1 connections")

    def app(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(1 << 30))])
        return iter([bytes(1 << 20)] * 1024)

    served = serve(app, shutdown_timeout=0.2)
    with served.connect() as client:
        client.send(GET)
        client.exactly(1000)
        served.server.stop()
        assert len(client.rest()) < 1 << 30
    assert not [thread for thread in threading.enumerate() if thread.name == "selector"]


def test_stopping_in_a_thread_cuts_uploads_with_an_error(serve: Serve, expect_log: Any) -> None:
    expect_log("cutting 1 connections")
    begun, outcome = threading.Event(), []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        begun.set()
        try:
            while environ["wsgi.input"].read(1000):
                pass
            outcome.append("success")
        except UploadTruncated:
            outcome.append("truncated")
        start_response("200 OK", [])
        return []

    served = serve(app, shutdown_timeout=0.0)
    with served.connect() as client:
        client.send(UPLOAD)
        assert begun.wait(PATIENCE)
        served.server.stop()
    assert outcome == ["truncated"]


def test_a_worker_that_dies_is_replaced(processes: Processes) -> None:
    process, target = started(processes, workers=2)
    before = {child.pid for child in psutil.Process(process.pid).children()}
    with RawClient(target) as client:
        client.send(b"GET /die HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.rest() == b""
    process.wait_for_line("worker . .* ended with status 7; another starts")
    process.wait_for_line(r"(?s)(made in .*){3}")
    after = {child.pid for child in psutil.Process(process.pid).children()}
    assert len(before & after) == 1
    with RawClient(target) as client:
        assert client.ask(GET).status == 200


def test_workers_end_when_their_parent_is_killed(processes: Processes) -> None:
    process, _ = started(processes, workers=2)
    children = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    gone, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert (len(gone), alive) == (2, [])


@BOTH
def test_an_application_that_can_not_start_is_one_clear_error(processes: Processes, workers: int) -> None:
    command = [sys.executable, "-m", "tests.support.doorway", "127.0.0.1:0", str(workers), "1", "broken"]
    process = processes.start(command)
    assert process.wait() == 2
    assert "refused: The flux is missing." in process.log()
    assert not psutil.Process().children() or "ready" not in process.log()


def wait_until_refused(target: tuple[str, int]) -> None:
    for _ in range(10_000):
        try:
            RawClient(target).sock.close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue
        threading.Event().wait(0.01)
    pytest.fail("new connections are still accepted")
