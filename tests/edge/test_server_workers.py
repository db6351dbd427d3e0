# SPDX-License-Identifier: Apache-2.0
"""Several processes at one address get equal shares, and the threads of one process are used as needed."""

import ast
import collections
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest

from gateway.http.balance import Balance
from tests.edge.conftest import Serve
from tests.support.processes import PATIENCE, Processes
from tests.support.rawhttp import RawClient

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_connections_that_are_kept_are_shared_out_evenly(processes: Processes) -> None:
    process = processes.start([sys.executable, "-m", "tests.support.doorway", "127.0.0.1:0", "2", "5"])
    port = int(process.wait_for_line(r"^ready http://127\.0\.0\.1:(\d+)$")[1])
    # On a busy machine one of them may be late for its turns. Left alone, the other gets nearly all of them each time.
    assert any(smallest_share(port) >= 4 for _ in range(30))


def smallest_share(port: int) -> int:
    """How many of sixteen connections that are kept the one of two workers has that has fewer."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(("127.0.0.1", port))) for _ in range(16)]
        shares = collections.Counter(client.ask(GET).body for client in clients)
    return min(shares.values()) if len(shares) > 1 else 0


def test_a_thread_that_computes_gives_way_soon(processes: Processes) -> None:
    process = processes.start([sys.executable, "-m", "tests.support.doorway", "127.0.0.1:0", "1", "5"])
    port = int(process.wait_for_line(r"^ready http://127\.0\.0\.1:(\d+)$")[1])
    with RawClient(("127.0.0.1", port)) as client:
        assert float(client.ask(GET.replace(b"/", b"/switch-interval", 1)).body) < 0.001


def test_a_worker_takes_what_is_its_turn_and_what_nobody_takes() -> None:
    balance = Balance(workers=3)
    first, second = balance.share(0), balance.share(1)
    assert first.may_take(0.0)
    first.report(2)
    second.report(1)
    assert second.may_take(10.0)
    assert not first.may_take(10.0)
    assert not first.may_take(10.01)
    assert first.may_take(10.03)
    assert not first.may_take(20.0)
    second.leave()
    assert first.may_take(20.01)


def test_requests_that_wait_elsewhere_do_not_wait_for_each_other(serve: Serve) -> None:
    together = threading.Barrier(16)

    def app(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        together.wait(PATIENCE)
        start_response("200 OK", [])
        return []

    served = serve(app)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(served.connect()) for _ in range(16)]
        for client in clients:
            client.send(GET)
        assert [client.answer().status for client in clients] == [200] * 16


@pytest.mark.needs("two cores")
def test_many_short_requests_share_a_core_and_a_transfer_is_free(serve: Serve) -> None:
    """The threads take turns at the interpreter; what a transfer does, it does without."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "PUT":
            while environ["wsgi.input"].readinto(bytearray(1 << 20)):
                pass
        start_response("200 OK", [])
        return [repr(sorted(os.sched_getaffinity(0))).encode()]

    everywhere = repr(sorted(os.sched_getaffinity(0))).encode()
    served = serve(app)
    with served.connect() as client, served.connect() as sender:
        assert client.ask(GET).body == everywhere

        def shared() -> bool:
            return len(ast.literal_eval(client.ask(GET).body.decode())) == 1

        assert any(shared() for _ in range(1000))
        sender.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000))
        assert sender.answer().body == everywhere
    assert os.sched_getaffinity(0) == set(ast.literal_eval(everywhere.decode()))


@pytest.mark.needs("two cores")
def test_workers_share_different_cores(processes: Processes) -> None:
    process = processes.start([sys.executable, "-m", "tests.support.doorway", "127.0.0.1:0", "2", "5"])
    port = int(process.wait_for_line(r"^ready http://127\.0\.0\.1:(\d+)$")[1])
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(("127.0.0.1", port))) for _ in range(16)]

        def differ() -> bool:
            told = {client.ask(GET.replace(b"/", b"/cores", 1)).body for client in clients}
            return len(told) == 2 and all(len(ast.literal_eval(cores.decode())) == 1 for cores in told)

        assert any(differ() for _ in range(1000))


def test_there_are_never_more_threads_than_the_limits_say(serve: Serve) -> None:
    served = serve(lambda _environ, start: start("200 OK", []) and [], max_uploads=1, max_downloads=1, reserve=2)
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(served.connect()) for _ in range(50)]
        for _ in range(20):
            for client in clients:
                client.send(GET)
            assert {client.answer().status for client in clients} == {200}
        assert 1 <= threading.active_count() - before <= 4


class _Meddling:
    """A lock after which, once, something happens before its holder goes on."""

    def __init__(self, lock: threading.Lock, meddle: Callable[[], bool]) -> None:
        self._lock = lock
        self._meddle: Callable[[], bool] | None = meddle

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        meddle, self._meddle = self._meddle, None
        if meddle is not None and not meddle():
            self._meddle = meddle


def test_a_worker_that_is_woken_before_it_sleeps_is_woken_once(serve: Serve) -> None:
    served = serve(lambda _environ, start: start("200 OK", []) and [])
    pool = served.engine.requests
    with served.connect() as first, served.connect() as second:

        def give_it_more_to_do() -> bool:
            if not pool._idle:
                return False
            second.send(GET)
            deadline = time.monotonic() + PATIENCE
            while pool._idle and time.monotonic() < deadline:
                threading.Event().wait(0.001)
            return True

        pool._lock = cast("threading.Lock", _Meddling(pool._lock, give_it_more_to_do))
        assert first.ask(GET).status == 200
        assert second.answer().status == 200
        assert [first.ask(GET).status for _ in range(5)] == [200] * 5


@pytest.mark.expect_log("a worker failed")
def test_a_worker_that_fails_does_not_end_the_server(serve: Serve) -> None:
    def observer(**_: object) -> None:
        if not failed:
            failed.append(True)
            raise SystemExit("an observer that ends the process")

    failed: list[bool] = []
    served = serve(lambda _environ, start: start("200 OK", []) and [], observer=observer)
    with served.connect() as client:
        client.send(GET)
        assert client.answer().status == 200
    for _ in range(3):
        with served.connect() as client:
            assert client.ask(GET).status == 200


def test_an_idle_server_does_not_spin(serve: Serve) -> None:
    others = set(threading.enumerate())
    served = serve(lambda _environ, start: start("200 OK", []) and [])
    with served.connect() as client:
        assert client.ask(GET).status == 200
        before = _processor_time(others)
        threading.Event().wait(1)
        assert _processor_time(others) - before < 0.5


def _processor_time(others: set[threading.Thread]) -> float:
    """Give the seconds that the threads besides others have run: servers that tests share go on meanwhile."""
    identifiers = [thread.ident for thread in threading.enumerate() if thread not in others]
    assert identifiers
    return sum(time.clock_gettime(time.pthread_getcpuclockid(one)) for one in identifiers if one is not None)
