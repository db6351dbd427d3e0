# SPDX-License-Identifier: Apache-2.0
"""Mounting when somebody looks: the kernel's side of systemd's automount, with this test in systemd's place.

Only the process group that has made an automount may go through it until it says that it is mounted (autofs(5) of the
kernel's documentation); a mount that leaves the group too early would wait for itself for ever.
"""

from __future__ import annotations

import sys

import pytest

from tests.support.apart import Apart

pytestmark = pytest.mark.needs("apart", "fuse", "autofs")

_SYSTEMD = """
import ctypes, fcntl, os, struct, subprocess, sys

READY = 0x9360  # AUTOFS_IOC_READY of linux/auto_fs.h
data, point = sys.argv[1:]
packets, theirs = os.pipe()
options = f"fd={theirs},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
assert ctypes.CDLL(None).mount(b"test", point.encode(), b"autofs", 0, options.encode()) == 0
root = os.open(point, os.O_RDONLY)
looking = subprocess.Popen(["ls", point], start_new_session=True, stdout=subprocess.PIPE, text=True)
token = struct.unpack_from("=iiI", os.read(packets, 4096))[2]  # struct autofs_v5_packet
assert looking.poll() is None
subprocess.run(["mount", "-t", "glancefs", data, point], check=True)
fcntl.ioctl(root, READY, token)
print(looking.communicate()[0], end="")
os.close(root)
"""


def test_a_mount_that_is_made_when_somebody_looks_is_seen_by_who_looked(apart: Apart) -> None:
    data, point = apart.folder("looked-at/data"), apart.folder("looked-at/point")
    apart.write(data.with_name("first"), "data")
    apart.run(sys.executable, "-I", "-m", "glancefs", "add", "--data", data, data.with_name("first"))
    assert apart.run(sys.executable, "-I", "-c", _SYSTEMD, data, point).out == "first\n"
    apart.run("umount", point)
    apart.run("umount", point)
