# SPDX-License-Identifier: Apache-2.0
"""A real Swift, all of it on this machine, with static large objects, quotas and the S3 API.

Answers for configuring, starting and stopping it, and for stopping and starting its proxy alone. `make setup-test` has
installed it into an environment of its own. Its data are a folder.

Threading: starting belongs to the main thread, as `Processes.start` does.
"""

from __future__ import annotations

import os
import pwd
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from configparser import RawConfigParser
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.capabilities import SWIFT
from tests.support.processes import Argument, Process, Processes, run

USER, KEY = "test:tester", "testing"
STRANGER, STRANGERS_KEY = "test:stranger", "strange"
"""Somebody who may log in and do nothing."""
MOST_SEGMENTS = 8
"""How many parts one list holds here, so that lists of lists are tested with little."""

_KINDS = ("account", "container", "object")
_CHUNK = 1 << 20

_RINGS = """
import sys
from swift.common.ring import RingBuilder
for kind, port in zip(("account", "container", "object"), sys.argv[2:]):
    ring = RingBuilder(2, 1, 0)
    ring.add_dev(dict(id=0, region=1, zone=1, weight=1, ip="127.0.0.1", port=int(port), device="disk", meta="",
                      replication_ip="127.0.0.1", replication_port=int(port)))
    ring.rebalance()
    ring.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""

# Constraints are read from one fixed place, whatever `swift_dir` says: so they are read again from ours.
_SERVER = """
import runpy, sys
from swift.common import constraints, utils
was, utils.SWIFT_CONF_FILE = utils.SWIFT_CONF_FILE, sys.argv[1]
constraints.reload_constraints()
utils.SWIFT_CONF_FILE = was
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# What memcached is to a cluster: tokens live here, and with the proxy they go.
_CACHE = """
import json, time

class Cache:
    def __init__(self):
        self.kept = {}

    def get(self, key, raise_on_error=False):
        value, end = self.kept.get(key, (None, 0))
        return None if value is None or (end and end < time.time()) else json.loads(value)

    def set(self, key, value, serialize=True, time=0, min_compress_len=0, raise_on_error=False):
        value = value.decode() if isinstance(value, bytes) else value
        self.kept[key] = (json.dumps(value), _end(time))

    def incr(self, key, delta=1, time=0):
        value = max(0, int(self.get(key) or 0) + int(delta))
        self.set(key, value, time=time)
        return value

    def decr(self, key, delta=1, time=0):
        return self.incr(key, -int(delta), time)

    def delete(self, key, server_key=None):
        self.kept.pop(key, None)

    def set_multi(self, mapping, server_key, serialize=True, time=0, min_compress_len=0, raise_on_error=False):
        for key, value in mapping.items():
            self.set(key, value, time=time)

    def get_multi(self, keys, server_key, raise_on_error=False):
        return [self.get(key) for key in keys]

def _end(seconds):
    return time.time() + float(seconds) if seconds else 0

def filter_factory(global_conf, **local_conf):
    cache = Cache()
    def factory(app):
        def cached(env, start_response):
            env["swift.cache"] = cache
            return app(env, start_response)
        return cached
    return factory
"""


@dataclass(slots=True, kw_only=True)
class Swift:
    """A running cluster of one machine."""

    folder: Path
    processes: Processes
    token_life: int = 86400
    most_segments: int = MOST_SEGMENTS
    keystone: Mapping[str, str] | None = None
    """How it speaks to a Keystone, as its ``authtoken`` filter wants it; None: users of its own."""
    ports: dict[str, int] = field(default_factory=dict)
    servers: dict[str, Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where its proxy is; also the endpoint of its S3 API."""
        return f"http://127.0.0.1:{self.ports['proxy']}"

    @property
    def auth_url(self) -> str:
        """Where its users log in."""
        return f"{self.url}/auth/v1.0"

    def start(self) -> None:
        """Start everything on free ports and wait until it answers."""
        self.ports = dict(zip((*_KINDS, "proxy"), _free_ports(4), strict=True))
        self._configure()
        rings = [str(self.ports[kind]) for kind in _KINDS]
        run([SWIFT / "bin/python", "-c", _RINGS, self.folder, *rings])
        for kind in _KINDS:
            self._start(kind)
        self.start_proxy()
        for kind in _KINDS:
            self.servers[kind].wait_for_port(self.ports[kind])

    def start_proxy(self) -> None:
        """Start the proxy, with no memory of the tokens of the one before, and wait until it answers."""
        self._start("proxy")
        deadline = time.monotonic() + 60
        while not self._is_well():
            if not self.servers["proxy"].running or time.monotonic() > deadline:
                pytest.fail(f"no Swift:\n{self.servers['proxy'].log()[-3000:]}", pytrace=False)
            time.sleep(0.02)

    def kill(self, kind: str) -> None:
        """End one of its servers at once, with every connection."""
        self.servers[kind].kill()

    def _start(self, kind: str) -> None:
        python, server = SWIFT / "bin/python", SWIFT / f"bin/swift-{kind}-server"
        words: list[Argument] = [
            python,
            "-c",
            _SERVER,
            self.folder / "swift.conf",
            server,
            self.folder / f"{kind}-server.conf",
            "-v",
        ]
        # What a proxy says of clients that went away looks like a failure.
        self.servers[kind] = self.processes.start(words, env={"PYTHONPATH": str(self.folder)}, traceback_permitted=True)

    def _is_well(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthcheck", timeout=5) as answer:
                return bool(answer.read() == b"OK")
        except (OSError, urllib.error.URLError):
            return False

    # What it is told

    def _configure(self) -> None:
        (self.folder / "srv/disk").mkdir(parents=True)
        (self.folder / "glancefs_cache.py").write_text(_CACHE)
        hashes = {"swift_hash_path_prefix": "a", "swift_hash_path_suffix": "a"}
        policy = {"name": "Policy-0", "default": "yes"}
        constraints = {"max_header_size": 16384}
        self._write("swift", {"swift-hash": hashes, "storage-policy:0": policy, "swift-constraints": constraints})
        for kind in _KINDS:
            self._write(f"{kind}-server", self._storage(kind))
        self._write("proxy-server", self._proxy())

    def _write(self, name: str, sections: Mapping[str, Mapping[str, object]]) -> None:
        parser = RawConfigParser()
        for section, values in sections.items():
            # Not read_dict: DEFAULT is a section of Swift's, whose values are nobody's defaults here.
            if section != parser.default_section:
                parser.add_section(section)
            for key, value in values.items():
                parser.set(section, key, str(value))
        with (self.folder / f"{name}.conf").open("w") as file:
            parser.write(file)

    def _base(self, kind: str) -> dict[str, object]:
        return {
            "bind_ip": "127.0.0.1",
            "bind_port": self.ports[kind],
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "swift_dir": self.folder,
            # One process, which does not fork: whoever forks here ends its parents with it.
            "workers": 0,
            "log_address": "/nonexistent",
            "log_level": "WARNING",
            "fallocate_reserve": 0,
            "eventlet_debug": "false",
        }

    def _storage(self, kind: str) -> dict[str, dict[str, object]]:
        disk = {"devices": self.folder / "srv", "mount_check": "false", "disable_fallocate": "true"}
        # A container that is told late of an object would never list it: nothing repairs that here.
        patience = {"node_timeout": 60, "conn_timeout": 5, "container_update_timeout": 30}
        chunks = {"network_chunk_size": _CHUNK, "disk_chunk_size": _CHUNK}
        return {
            "DEFAULT": {**self._base(kind), **disk, "db_preallocation": "off"},
            "pipeline:main": {"pipeline": f"{kind}-server"},
            f"app:{kind}-server": {"use": f"egg:swift#{kind}", **patience, **(chunks if kind == "object" else {})},
        }

    def _proxy(self) -> dict[str, dict[str, object]]:
        login = ["s3api", "tempauth"] if self.keystone is None else ["authtoken", "s3api", "s3token", "keystoneauth"]
        names = ["catch_errors", "gatekeeper", "healthcheck", "cache", "listing_formats", "bulk", *login]
        names += ["copy", "container-quotas", "slo", "dlo", "symlink"]
        sections: dict[str, dict[str, object]] = {
            "DEFAULT": self._base("proxy"),
            "pipeline:main": {"pipeline": " ".join([*names, "proxy-server"])},
            "app:proxy-server": {
                "use": "egg:swift#proxy",
                "account_autocreate": "true",
                "node_timeout": 60,
                "recoverable_node_timeout": 60,
                "conn_timeout": 5,
                # One hiccup of the only disk would be a minute of refusals.
                "error_suppression_interval": 0,
                "object_chunk_size": _CHUNK,
                "client_chunk_size": _CHUNK,
            },
        }
        said = self._filters()
        for name in names:
            egg = {"use": f"egg:swift#{name.replace('-', '_')}"}
            sections[f"filter:{name}"] = {**({} if "paste.filter_factory" in said.get(name, {}) else egg)}
            sections[f"filter:{name}"] |= said.get(name, {})
        return sections

    def _filters(self) -> dict[str, dict[str, object]]:
        users = {f"user_{USER.replace(':', '_')}": f"{KEY} .admin", f"user_{STRANGER.replace(':', '_')}": STRANGERS_KEY}
        keystone = dict(self.keystone or {})
        return {
            "cache": {"paste.filter_factory": "glancefs_cache:filter_factory"},
            "slo": {"min_segment_size": 1, "max_manifest_segments": self.most_segments},
            "s3api": {"s3_acl": "false", "location": "us-east-1", "min_segment_size": 1},
            "tempauth": {**users, "token_life": self.token_life},
            "authtoken": {
                "paste.filter_factory": "keystonemiddleware.auth_token:filter_factory",
                "delay_auth_decision": "true",
                "service_token_roles_required": "true",
                **keystone,
            },
            "s3token": {"auth_uri": keystone.get("auth_url", ""), "delay_auth_decision": "true", **keystone},
            "keystoneauth": {"operator_roles": "admin, member", "reseller_prefix": "AUTH"},
        }


def start_swift(processes: Processes, folder: Path, **said: Any) -> Swift:
    """Start a cluster of its own; ``said`` are fields of `Swift`."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Swift(folder=folder, processes=processes, **said)
    cluster.start()
    return cluster


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """A cluster that many tests share; each uses containers of its own, and none stops anything."""
    folder = tmp_path_factory.mktemp("swift")
    with Processes(folder) as processes:
        yield start_swift(processes, folder / "cluster")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
