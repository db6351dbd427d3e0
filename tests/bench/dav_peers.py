# SPDX-License-Identifier: Apache-2.0
"""Whom the WebDAV door is measured beside: Apache's mod_dav, nginx with dav-ext, `rclone serve webdav`, stock wsgidav.

Answers for running them on a folder of their own, as they come but for what makes them comparable: a log of requests,
no users, as many workers. Also for a client that lists folders and throws away what it gets.

Threading: used from pytest's main thread.
"""

from __future__ import annotations

import io
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPResponse
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.bench.load import BUFFER, Rate, command, wrk
from tests.support.processes import Argument, Process, Processes, free_port

_APACHE: Final = """
ServerRoot {modules}
DefaultRuntimeDir {folder}
PidFile {folder}/pid
Mutex default:{folder}
ErrorLog {folder}/error.log
ServerName localhost
Listen 127.0.0.1:{port}
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule dav_module modules/mod_dav.so
LoadModule dav_fs_module modules/mod_dav_fs.so
StartServers {workers}
EnableSendfile On
MaxKeepAliveRequests 0
LogFormat "%h %t \\"%r\\" %>s %b" common
CustomLog {folder}/access.log common
DocumentRoot {folder}/files
DavLockDB {folder}/locks
<Directory {folder}/files>
  Dav On
  Require all granted
</Directory>
"""
_NGINX: Final = """
load_module {module};
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
  dav_ext_lock_zone zone=locks:10m;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/files;
    location / {{ dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS LOCK UNLOCK; }}
  }}
}}
"""
# Apache declines to run as root; it is another user here who may do on the disk what root may.
_AS_NOBODY: Final = (
    *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"),
    *("--inh-caps", "+dac_override,+fowner", "--ambient-caps", "+dac_override,+fowner"),
)
_DIE_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "KILL", "--")
"""Once more: who becomes another user forgets it."""

ASKED: Final = (
    "<D:prop><D:resourcetype/><D:getcontentlength/><D:getlastmodified/><D:getetag/><D:creationdate/></D:prop>"
)
"""What clients ask of each file that they list."""
EVERYTHING: Final = "<D:allprop/>"


@dataclass(frozen=True, slots=True, kw_only=True)
class DavPeer:
    """A server of WebDAV on a folder."""

    process: Process
    url: str
    files: Path


@dataclass(slots=True, kw_only=True)
class DavPeers:
    """Starts the peers, each in a folder of its own."""

    processes: Processes
    folder: Path

    def apache(self, *, workers: int) -> DavPeer:
        """Apache's mod_dav, with the threads of mpm_event."""
        program = command("apache2")
        folder, port = self._place("apache")
        modules = program.parents[1] / "lib" / "apache2"
        config = folder / "apache.conf"
        config.write_text(_APACHE.format(modules=modules, folder=folder, port=port, workers=workers))
        other = (*_AS_NOBODY, *_DIE_WITH_PARENT) if os.geteuid() == 0 else ()
        return self._started(folder, port, [*other, program, "-DFOREGROUND", "-f", config])

    def nginx(self, *, workers: int, buffer: str = "16k") -> DavPeer:
        """The modules that nginx brings for PUT, and dav-ext for the rest; bodies come in pieces of ``buffer``."""
        program = command("nginx")
        folder, port = self._place("nginx")
        module = program.parents[1] / "lib" / "nginx" / "modules" / "ngx_http_dav_ext_module.so"
        config = folder / "nginx.conf"
        config.write_text(_NGINX.format(module=module, folder=folder, port=port, workers=workers, buffer=buffer))
        return self._started(folder, port, [program, "-c", config])

    def rclone(self) -> DavPeer:
        """`rclone serve webdav`, which writes through."""
        folder, port = self._place("rclone")
        words: list[Argument] = [command("rclone"), "serve", "webdav", "--addr", f"127.0.0.1:{port}"]
        return self._started(folder, port, [*words, "--config", os.devnull, folder / "files"])

    def stock(self) -> DavPeer:
        """The command of wsgidav, as it comes."""
        folder, port = self._place("wsgidav")
        words: list[Argument] = [sys.executable, "-W", "ignore", "-m", "wsgidav.server.server_cli"]
        where = ["--host", "127.0.0.1", "--port", str(port), "--root", str(folder / "files"), "--auth", "anonymous"]
        return self._started(folder, port, [*words, *where, "--no-config"])

    def _place(self, name: str) -> tuple[Path, int]:
        folder = self.folder / f"{name}-{len(self.processes.started)}"
        (folder / "files").mkdir(parents=True)
        return folder, free_port()

    def _started(self, folder: Path, port: int, words: Sequence[Argument]) -> DavPeer:
        process = self.processes.start(words)
        process.wait_for_port(port)
        return DavPeer(process=process, url=f"http://127.0.0.1:{port}", files=folder / "files")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """How long a listing took until its first byte, and until its last, in seconds; and what it was."""

    first: float
    whole: float
    entries: int
    size: int


def list_folder(url: str, *, asked: str = ASKED) -> Listing:
    """List a folder (PROPFIND, depth 1) on a connection of its own."""
    parts = urlsplit(url)
    body = f'<?xml version="1.0"?><D:propfind xmlns:D="DAV:">{asked}</D:propfind>'
    head = f"PROPFIND {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nDepth: 1\r\nConnection: close\r\n"
    sent = f"{head}Content-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    blocks = []
    with socket.create_connection((parts.hostname, parts.port)) as sock:
        started = time.perf_counter()
        sock.sendall(sent)
        blocks.append(sock.recv(BUFFER))
        first = time.perf_counter() - started
        while block := sock.recv(BUFFER):
            blocks.append(block)
        whole = time.perf_counter() - started
    answer = HTTPResponse(_Kept(b"".join(blocks)))  # type: ignore[arg-type]  # it asks a socket for a file, no more
    answer.begin()
    assert answer.status == HTTPStatus.MULTI_STATUS
    said = answer.read()
    return Listing(first=first, whole=whole, entries=said.count(b":response>"), size=len(said))


@dataclass(frozen=True, slots=True)
class _Kept:
    """What came over a socket, to be read as if from one: chunks are taken apart when the time does not run."""

    data: bytes

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self.data)


# wrk reads no option for the method.
_PROPFIND: Final = f"""
wrk.method = "PROPFIND"
wrk.headers["Depth"] = "0"
wrk.headers["Content-Type"] = "application/xml"
wrk.body = '<?xml version="1.0"?><D:propfind xmlns:D="DAV:">{ASKED}</D:propfind>'
"""


def look_at_one(url: str, *, folder: Path, clients: int, seconds: int) -> Rate:
    """Ask again and again what one file is like (PROPFIND, depth 0). Fails at any answer but success."""
    script = folder / "propfind.lua"
    script.write_text(_PROPFIND)
    return wrk(url, clients=clients, seconds=seconds, options=["-s", str(script)])
