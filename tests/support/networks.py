# SPDX-License-Identifier: Apache-2.0
"""Several hosts on one machine: network namespaces on a switch of their own, whose cables can be pulled.

Answers for making them, for running commands on them, for cutting one off, and for their end: they bear the mark of
their run in their names, so that the next run clears away what a killed one left. This process is on the switch too.

Threading: belongs to the main thread.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import pytest

from tests.support.leaks import NAMESPACES, Run
from tests.support.processes import Argument

PREFIX_LENGTH: Final = 24
_FIRST_HOST: Final = 11


@dataclass(slots=True, kw_only=True)
class Network:
    """A switch and hosts on it; a context manager."""

    hosts: Sequence[str]
    _mark: str = field(init=False)
    _subnet: str = field(init=False)
    _cable: str = field(init=False)

    def __post_init__(self) -> None:
        run = Run.of_process(os.getpid())
        assert run is not None
        self._mark = f"{NAMESPACES}{run}"
        # Two runs on one machine differ in their process ids, and so, nearly always, in their addresses.
        self._subnet = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        # Names of interfaces have 15 characters at the most.
        self._cable = f"gfs{os.getpid()}"

    @property
    def here(self) -> str:
        """The address of this process on the switch."""
        return f"{self._subnet}.1"

    def address(self, host: str) -> str:
        """The address of a host."""
        return f"{self._subnet}.{_FIRST_HOST + self.hosts.index(host)}"

    def command(self, host: str) -> list[Argument]:
        """What a command has in front of it that is to run on a host; only its network differs from ours."""
        return ["nsenter", f"--net=/run/netns/{self._namespace(host)}", "--"]

    def cut(self, host: str) -> None:
        """Pull the cable of a host: nothing goes in or out, and nobody is told."""
        self._ip("-n", self._namespace("switch"), "link", "set", f"to-{host}", "down")

    def mend(self, host: str) -> None:
        """Put the cable back."""
        self._ip("-n", self._namespace("switch"), "link", "set", f"to-{host}", "up")

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _make(self) -> None:
        switch = self._namespace("switch")
        self._ip("netns", "add", switch)
        self._ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        self._ip("-n", switch, "link", "set", "bridge", "up")
        self._ip("link", "add", self._cable, "type", "veth", "peer", "name", "to-here", "netns", switch)
        self._plug(switch, "to-here")
        self._ip("address", "add", f"{self.here}/{PREFIX_LENGTH}", "dev", self._cable)
        self._ip("link", "set", self._cable, "up")
        for host in self.hosts:
            namespace = self._namespace(host)
            self._ip("netns", "add", namespace)
            cable = ["type", "veth", "peer", "name", f"to-{host}", "netns", switch]
            self._ip("-n", namespace, "link", "add", "cable", *cable)
            self._plug(switch, f"to-{host}")
            self._ip("-n", namespace, "address", "add", f"{self.address(host)}/{PREFIX_LENGTH}", "dev", "cable")
            for device in ("lo", "cable"):
                self._ip("-n", namespace, "link", "set", device, "up")

    def _plug(self, switch: str, port: str) -> None:
        self._ip("-n", switch, "link", "set", port, "master", "bridge")
        self._ip("-n", switch, "link", "set", port, "up")

    def _remove(self) -> None:
        # Cables end with the namespace of either end, here as there.
        for name in [*self.hosts, "switch"]:
            subprocess.run(["ip", "netns", "delete", self._namespace(name)], capture_output=True, check=False)

    def _namespace(self, name: str) -> str:
        return f"{self._mark}-{name}"

    @staticmethod
    def _ip(*words: str) -> None:
        said = subprocess.run(["ip", *words], capture_output=True, check=False, timeout=30)
        if said.returncode:
            pytest.fail(f"ip {' '.join(words)}: {said.stderr.decode(errors='replace')}", pytrace=False)
