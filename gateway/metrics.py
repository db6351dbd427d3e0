# SPDX-License-Identifier: Apache-2.0
"""What the gateway counts, for Prometheus.

Answers for the metrics' names and labels and for the page that tells them, totals over all worker processes. Does not
see requests: the server calls `observe` for each finished one.

Threading: `Metrics` is made before the server forks and shared by all threads of all its processes; `MetricsPage` is
made in each process.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway.counters import SharedNumbers
from gateway.health import FINE, Health
from glancefs.errors import GlancefsError
from glancefs.registries.base import Holdings, Registry

_log = logging.getLogger(__name__)

METHODS: Final = (
    *("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK"),
    *("UNLOCK", "other"),
)
STATUSES: Final = (
    *("200", "201", "204", "206", "207", "301", "302", "304", "400", "401", "403", "404", "405", "408", "409", "412"),
    *("413", "414", "415", "416", "417", "423", "431", "500", "501", "503", "505", "507", "none", "other"),
)
"""``none``: the connection ended before there was an answer."""
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0)
"""Upper bounds of the durations, in seconds; one more bucket takes the rest."""

_UPLOADS: Final = 0
_FIRST_SERIES: Final = 1
_SECONDS, _BYTES_IN, _BYTES_OUT, _FIRST_BUCKET = range(4)
_SERIES: Final = _FIRST_BUCKET + len(BUCKETS) + 1
_NOTHING: Final = bytes(len(STATUSES) * _SERIES * 8)
_HOLDINGS_AGE: Final = 15.0


class Metrics:
    """Counts for ``workers`` processes that are forked later; ``routes`` are the labels that requests may have."""

    def __init__(self, *, routes: Sequence[str], workers: int = 1) -> None:
        self._routes = (*routes, "other")
        self._route_of = {name: index for index, name in enumerate(self._routes)}
        self._method_of = {name: index for index, name in enumerate(METHODS)}
        self._status_of = {int(name): index for index, name in enumerate(STATUSES) if name.isdigit()}
        self._status_of[0] = STATUSES.index("none")
        series = len(self._routes) * len(METHODS) * len(STATUSES)
        # A worker that is replaced may overlap with its successor.
        self._numbers = SharedNumbers(slots=2 * workers + 1, width=_FIRST_SERIES + series * _SERIES)
        self._lock = threading.Lock()

    def observe(self, *, route: str, method: str, status: int, bytes_in: int, bytes_out: int, seconds: float) -> None:
        """Count one finished request; labels that are not known count as ``other``. Status 0: there was no answer."""
        numbers = self._slot()
        at = self._series(
            self._route_of.get(route, len(self._routes) - 1),
            self._method_of.get(method, len(METHODS) - 1),
            self._status_of.get(status, len(STATUSES) - 1),
        )
        bucket = at + _FIRST_BUCKET + bisect_left(BUCKETS, seconds)
        with self._lock:
            numbers[at + _SECONDS] += seconds
            numbers[at + _BYTES_IN] += bytes_in
            numbers[at + _BYTES_OUT] += bytes_out
            numbers[bucket] += 1

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Count an upload as under way for as long as the context lasts."""
        numbers = self._slot()
        with self._lock:
            numbers[_UPLOADS] += 1
        try:
            yield
        finally:
            with self._lock:
                numbers[_UPLOADS] -= 1

    def families(self) -> Iterable[Metric]:
        """Give the totals over all processes."""
        slots = self._numbers.every_slot()
        uploads = GaugeMetricFamily("glancefs_uploads_under_way", "Uploads whose data are coming in.")
        uploads.add_metric([], sum(slot[_UPLOADS] for slot in slots))
        yield uploads
        labels = ("route", "method", "status")
        seconds = HistogramMetricFamily(
            "glancefs_request_duration_seconds", "Requests and how long they took.", labels=labels
        )
        bytes_in = CounterMetricFamily("glancefs_request_bytes", "Bytes of bodies that were received.", labels=labels)
        bytes_out = CounterMetricFamily("glancefs_response_bytes", "Bytes that were sent.", labels=labels)
        for names, totals in self._totals(slots):
            counts = list(accumulate(totals[_FIRST_BUCKET:]))
            bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
            seconds.add_metric(names, list(zip(bounds, counts, strict=True)), totals[_SECONDS])
            bytes_in.add_metric(names, totals[_BYTES_IN])
            bytes_out.add_metric(names, totals[_BYTES_OUT])
        yield from (seconds, bytes_in, bytes_out)

    def close(self) -> None:
        """Let go of the shared memory; nobody may count any more."""
        self._numbers.close()

    def _slot(self) -> memoryview[float]:
        numbers, is_new = self._numbers.slot()
        if is_new:
            # What a dead process had under way is no longer.
            numbers[_UPLOADS] = 0
        return numbers

    def _series(self, route: int, method: int, status: int) -> int:
        return _FIRST_SERIES + ((route * len(METHODS) + method) * len(STATUSES) + status) * _SERIES

    def _totals(self, slots: Sequence[memoryview[float]]) -> Iterator[tuple[list[str], list[float]]]:
        for route, route_name in enumerate(self._routes):
            for method, method_name in enumerate(METHODS):
                block = slice(self._series(route, method, 0), self._series(route, method, len(STATUSES)))
                # Most of what could be counted never is.
                if all(slot[block].tobytes() == _NOTHING for slot in slots):
                    continue
                for status, status_name in enumerate(STATUSES):
                    at = self._series(route, method, status)
                    totals = [sum(values) for values in zip(*(slot[at : at + _SERIES] for slot in slots), strict=True)]
                    if any(totals[_FIRST_BUCKET:]):
                        yield [route_name, method_name, status_name], totals


class MetricsPage:
    """The page that Prometheus reads."""

    def __init__(
        self, *, metrics: Metrics, registry: Registry, health: Health, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Families(metrics))
        self._registry.register(_Kept(registry, clock))
        self._registry.register(_Stores(health))

    def render(self, accept: str | None) -> tuple[str, bytes]:
        """Give the page's media type and the page, in the form that the caller prefers."""
        encode, content_type = choose_encoder(accept or "")
        return content_type, encode(self._registry)


class _Families(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.families()

    def describe(self) -> Iterable[Metric]:
        # Without this, registering collects once for the names.
        return ()


class _Stores(Collector):
    """How the stores are, as ``/healthcheck`` tells it."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("glancefs_store_up", "Whether the store answers and takes images.", labels=("store",))
        for part, state in self._health.report().parts.items():
            kind, _, name = part.partition(" ")
            if kind == "store":
                up.add_metric([name], 1 if state == FINE else 0)
        yield up


class _Kept(Collector):
    """What the registry holds, asked for at most every `_HOLDINGS_AGE` seconds, since it counts every image."""

    def __init__(self, registry: Registry, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_at: float | None = None
        self._holdings: Sequence[Holdings] | None = None

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        holdings = self._current()
        up = GaugeMetricFamily("glancefs_registry_up", "Whether the registry answered when it was asked last.")
        up.add_metric([], 0 if holdings is None else 1)
        yield up
        if holdings is None:
            return
        images = GaugeMetricFamily("glancefs_images", "Images.", labels=("status", "store"))
        sizes = GaugeMetricFamily("glancefs_image_bytes", "Bytes of images.", labels=("status", "store"))
        for held in holdings:
            images.add_metric([held.status.value, held.store], held.images)
            sizes.add_metric([held.status.value, held.store], held.size)
        yield from (images, sizes)

    def _current(self) -> Sequence[Holdings] | None:
        with self._lock:
            if self._asked_at is None or self._clock() - self._asked_at >= _HOLDINGS_AGE:
                try:
                    self._holdings = self._registry.holdings()
                except GlancefsError as error:
                    _log.warning("the registry could not be asked what it holds: %s", error)
                    self._holdings = None
                self._asked_at = self._clock()
            return self._holdings
