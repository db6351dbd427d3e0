# SPDX-License-Identifier: Apache-2.0
"""Counting requests, over threads and over processes.

Threading: tests count from threads and forks on purpose.
"""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.counters import SharedNumbers
from gateway.metrics import Metrics


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics(routes=("image", "root"), workers=2)
    yield made
    made.close()


def observe(
    metrics: Metrics,
    *,
    route: str = "image",
    method: str = "GET",
    status: int = 200,
    seconds: float = 0.02,
    times: int = 1,
) -> None:
    for _ in range(times):
        metrics.observe(route=route, method=method, status=status, bytes_in=3, bytes_out=5, seconds=seconds)


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in metrics.families()
        for sample in family.samples
        if sample.name == name
    }


def test_requests_are_counted_by_route_method_and_status(metrics: Metrics) -> None:
    observe(metrics)
    observe(metrics)
    observe(metrics, status=404)
    observe(metrics, method="HEAD")
    observe(metrics, route="root")
    observe(metrics, route="nonsense", method="BREW", status=418)
    observe(metrics, status=0)
    assert samples(metrics, "glancefs_request_duration_seconds_count") == {
        ("image", "GET", "200"): 2,
        ("image", "GET", "404"): 1,
        ("image", "HEAD", "200"): 1,
        ("root", "GET", "200"): 1,
        ("other", "other", "other"): 1,
        ("image", "GET", "none"): 1,
    }
    assert samples(metrics, "glancefs_request_bytes_total")["image", "GET", "200"] == 6
    assert samples(metrics, "glancefs_response_bytes_total")["image", "GET", "200"] == 10
    assert samples(metrics, "glancefs_request_duration_seconds_sum")["image", "GET", "200"] == pytest.approx(0.04)


@pytest.mark.parametrize(("seconds", "bucket"), [(0, "0.001"), (0.001, "0.001"), (0.0011, "0.0025"), (9999, "+Inf")])
def test_durations_fall_into_the_bucket_that_holds_them(metrics: Metrics, seconds: float, bucket: str) -> None:
    observe(metrics, seconds=seconds)
    buckets = samples(metrics, "glancefs_request_duration_seconds_bucket")
    assert next(labels[-1] for labels, count in buckets.items() if count) == bucket


def test_no_request_is_lost_between_threads(metrics: Metrics) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: observe(metrics), range(4000)))
    assert samples(metrics, "glancefs_request_duration_seconds_count") == {("image", "GET", "200"): 4000}


def in_a_fork(work: object) -> int:
    """Run this in a forked process, and give the process."""
    process = os.fork()
    if process:
        return process
    try:
        assert callable(work)
        work()
    finally:
        os._exit(0)


def test_all_processes_count_together_also_the_dead(metrics: Metrics) -> None:
    observe(metrics)
    for _ in range(3):
        # One after the other, as a worker that died is replaced.
        os.waitpid(in_a_fork(lambda: observe(metrics, times=10)), 0)
    assert samples(metrics, "glancefs_request_duration_seconds_count") == {("image", "GET", "200"): 31}


def test_what_a_dead_process_had_under_way_is_not_under_way(metrics: Metrics) -> None:
    ready, tell = os.pipe()

    def upload_for_ever() -> None:
        with metrics.upload():
            os.write(tell, b".")
            signal.pause()

    process = in_a_fork(upload_for_ever)
    os.read(ready, 1)
    assert samples(metrics, "glancefs_uploads_under_way") == {(): 1}
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    os.waitpid(in_a_fork(lambda: observe(metrics)), 0)
    assert samples(metrics, "glancefs_uploads_under_way") == {(): 0}
    os.close(ready)
    os.close(tell)


def test_living_processes_have_slots_of_their_own() -> None:
    numbers = SharedNumbers(slots=3, width=1)
    ready, tell = os.pipe()

    def add_and_stay() -> None:
        numbers.slot()[0][0] += 1
        os.write(tell, b".")
        signal.pause()

    processes = []
    for _ in range(3):
        processes.append(in_a_fork(add_and_stay))
        os.read(ready, 1)
    assert [slot[0] for slot in numbers.every_slot()] == [1, 1, 1]
    for process in processes:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    os.close(ready)
    os.close(tell)
    numbers.close()
