# SPDX-License-Identifier: Apache-2.0
"""Clients that take as little of the machine as they can: it belongs to the server that is measured.

Answers for rates and latencies of small requests, by ab and wrk, and for transfers by bare sockets. What fails raises.

Threading: parallel transfers run in threads that spend their time in the kernel.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final
from urllib.parse import urlsplit

from tests.support.capabilities import tool
from tests.support.processes import Argument, run

BUFFER: Final = 1 << 20
MEGA: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How many requests in a second, and the 99th percentile of the answers' times in milliseconds."""

    per_second: float
    p99: float


def alternate(rounds: int, **contenders: Callable[[], float]) -> dict[str, list[float]]:
    """Let contenders take turns, so that whatever else the machine does hits all of them.

    Every round begins with another one, so that nobody always comes right after the one that leaves most behind.
    """
    runs: dict[str, list[float]] = {name: [] for name in contenders}
    order = deque(contenders.items())
    for _ in range(rounds):
        for name, contender in order:
            runs[name].append(contender())
        order.rotate(-1)
    return runs


def warm_memory(folder: Path, size: int) -> None:
    """Have as much free memory at hand as is going to be used.

    A virtual machine gives back to its host what lies free for seconds. Who writes into it first pays several times the
    price, which would be the one whose start takes longest.
    """
    file = folder / "warm"
    data = bytes(BUFFER)
    with file.open("wb", buffering=0) as writer:
        for _ in range(size // BUFFER):
            writer.write(data)
    file.unlink()


def medians(runs: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Give the median of each contender's runs."""
    return {name: median(values) for name, values in runs.items()}


def command(name: str) -> Path:
    """Where a tool of the benchmarks is. Raises FileNotFoundError."""
    found = tool(name)
    if found is None:
        raise FileNotFoundError(f"{name} is missing; `make bench` installs it")
    return found


# Small requests


def ab(url: str, *, clients: int, requests: int, options: Sequence[str] = ()) -> Rate:
    """Send requests on connections that stay open, with ApacheBench. Fails at any answer but success."""
    words: list[Argument] = [command("ab"), "-q", "-k", "-c", str(clients), "-n", str(requests), *options, url]
    said = run(words, timeout=300).out
    found = {name.strip(): value for name, value in re.findall(r"^ *([\w%/ -]+?):? {2,}(\d[\d.]*)", said, re.MULTILINE)}
    assert found["Failed requests"] == "0", said
    assert "Non-2xx" not in said, said
    assert found["Complete requests"] == str(requests), said
    return Rate(per_second=float(found["Requests per second"]), p99=float(found["99%"]))


def wrk(
    url: str, *, clients: int, seconds: int, threads: int = 1, options: Sequence[str] = (), args: Sequence[str] = ()
) -> Rate:
    """Send requests on connections that stay open, with wrk. Fails at any answer but success."""
    words: list[Argument] = [
        command("wrk"),
        "-t",
        str(threads),
        "-c",
        str(clients),
        "-d",
        str(seconds),
        "--timeout",
        "30",
        "--latency",
    ]
    words += [*options, url, *(["--", *args] if args else [])]
    said = run(words, timeout=300).out
    assert "Non-2xx" not in said, said
    assert "Socket errors" not in said, said
    assert "WRONG" not in said, said
    rate = re.search(r"^Requests/sec: +([\d.]+)", said, re.MULTILINE)
    slowest = re.search(r"^ +99% +([\d.]+)(us|ms|s)", said, re.MULTILINE)
    assert rate is not None, said
    assert slowest is not None, said
    return Rate(per_second=float(rate[1]), p99=float(slowest[1]) * {"us": 0.001, "ms": 1, "s": 1000}[slowest[2]])


# Each connection has a thread of its own, so that what it deletes it has created before.
_PAIRS: Final = """
local number, made, id, wrong = 0, 0, nil, 0
local threads = {}
function setup(thread) number = number + 1; thread:set("own", number); table.insert(threads, thread) end
function init(args)
  method, path, body = args[1], args[2], args[3]
  if body == "" then body = nil end
end
function request()
  if id then return wrk.format("DELETE", path .. id) end
  made = made + 1
  name = own .. "-" .. made .. "-" .. os.time()
  if method == "PUT" then return wrk.format(method, path .. name, {}, body) end
  local headers = {["x-image-meta-id"] = name, ["x-image-meta-name"] = name, ["x-image-meta-type"] = "raw"}
  return wrk.format(method, path, headers, body)
end
function response(status)
  if id then id = nil
    if status ~= 200 and status ~= 204 then wrong = wrong + 1 end
  else id = name
    if status ~= 201 then wrong = wrong + 1; id = nil end
  end
  failures = wrong
end
function done()
  local all = 0
  for _, thread in ipairs(threads) do all = all + (thread:get("failures") or 0) end
  if all > 0 then print("WRONG answers: " .. all) end
end
"""


def pairs(url: str, *, folder: Path, method: str, size: int, seconds: int, clients: int = 16) -> float:
    """Create and delete, again and again, with wrk; give the pairs in a second. Fails at any error.

    ``url`` ends in a slash. With POST the id goes in a header as the images API has it, with PUT in the URL.
    """
    script = folder / "pairs.lua"
    script.write_text(_PAIRS)
    args = [method, urlsplit(url).path, "x" * size]
    options = ["-s", str(script)]
    return wrk(url, clients=clients, seconds=seconds, threads=clients, options=options, args=args).per_second / 2


# Transfers


def get(url: str, *, size: int, at_once: int = 1) -> float:
    """Fetch this many bytes, several times at once, and throw them away; give megabytes in a second."""
    parts = urlsplit(url)
    asked = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode()

    def fetch(_: int) -> None:
        with _answered(parts.hostname, parts.port, asked) as (status, answer, rest):
            assert status == 200, status
            left, buffer = size - rest, bytearray(BUFFER)
            while left and (came := answer.recv_into(buffer)):
                left -= came
            assert not left, f"{left} bytes are missing"

    return _rate(fetch, size=size, at_once=at_once)


def send(method: str, url: str, file: Path, *, headers: Sequence[str] = ()) -> float:
    """Send a file and wait for the answer; give megabytes in a second."""
    parts, size = urlsplit(url), file.stat().st_size
    lines = [f"{method} {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {size}", *headers]

    def upload(_: int) -> None:
        head = "\r\n".join([*lines, "Connection: close", "", ""]).encode()
        with socket.create_connection((parts.hostname, parts.port)) as sock, file.open("rb") as data:
            sock.sendall(head)
            start = 0
            while start < size:
                start += os.sendfile(sock.fileno(), data.fileno(), start, size - start)
            status = int(sock.recv(4096).split()[1])
            assert status in {201, 204}, status

    return _rate(upload, size=size, at_once=1)


def _rate(transfer: Callable[[int], None], *, size: int, at_once: int) -> float:
    with ThreadPoolExecutor(at_once) as together:
        started = time.perf_counter()
        list(together.map(transfer, range(at_once)))
        return at_once * size / MEGA / (time.perf_counter() - started)


@contextmanager
def _answered(host: str | None, port: int | None, asked: bytes) -> Iterator[tuple[int, socket.socket, int]]:
    """Ask, and read the head of the answer: its status, the connection, and how much of the body came with it."""
    with socket.create_connection((host, port)) as sock:
        sock.sendall(asked)
        head = b""
        while b"\r\n\r\n" not in head:
            block = sock.recv(4096)
            assert block, head
            head += block
        yield int(head.split()[1]), sock, len(head.partition(b"\r\n\r\n")[2])
