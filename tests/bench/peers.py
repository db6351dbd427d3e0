# SPDX-License-Identifier: Apache-2.0
"""Whom glancefs is measured beside: nginx with its dav module, the disk, and SHA-256 by themselves.

Answers for running the peers under the same conditions: the same file system, as many workers, a log of requests.

Threading: used from pytest's main thread.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import BUFFER, MEGA, command
from tests.support.processes import Process, Processes, free_port

_CONFIG = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes {workers};
user root;
events {{ worker_connections 1024; }}
http {{
  access_log {folder}/access.log;
  sendfile on;
  tcp_nopush on;
  client_max_body_size 0;
  client_body_buffer_size {buffer};
  client_body_temp_path {folder}/incoming;
  proxy_temp_path {folder}/t1; fastcgi_temp_path {folder}/t2; uwsgi_temp_path {folder}/t3; scgi_temp_path {folder}/t4;
  keepalive_requests 100000000;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/files;
    location / {{ dav_methods PUT DELETE; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nginx:
    """nginx on a folder; what is PUT there is served from there."""

    process: Process
    url: str
    files: Path


def start_nginx(processes: Processes, folder: Path, *, workers: int, buffer: str = "16k") -> Nginx:
    """Start nginx and wait until it listens. It takes bodies in pieces of ``buffer``, which it comes with as 16k."""
    port = free_port()
    (folder / "files").mkdir(parents=True)
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, workers=workers, port=port, buffer=buffer))
    process = processes.start([command("nginx"), "-c", config])
    process.wait_for_port(port)
    return Nginx(process=process, url=f"http://127.0.0.1:{port}", files=folder / "files")


def write_and_sync(source: Path, target: Path) -> float:
    """Copy a file to the disk and wait until it is there; give megabytes in a second."""
    size = source.stat().st_size
    with source.open("rb") as data, target.open("wb") as kept:
        started = time.perf_counter()
        os.posix_fallocate(kept.fileno(), 0, size)
        while block := data.read(BUFFER):
            kept.write(block)
        kept.flush()
        os.fdatasync(kept.fileno())
        taken = time.perf_counter() - started
    target.unlink()
    return size / MEGA / taken


def hash_alone(source: Path) -> float:
    """Hash a file that is in memory; give megabytes in a second."""
    digest, size = hashlib.sha256(), source.stat().st_size
    started = time.perf_counter()
    with source.open("rb") as data:
        while block := data.read(BUFFER):
            digest.update(block)
    return size / MEGA / (time.perf_counter() - started)
