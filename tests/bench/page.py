# SPDX-License-Identifier: Apache-2.0
"""docs/reference/performance.md: the table, and what it takes to read it.

Answers for the words around the table and for describing the machine so that others can tell it from theirs. Names no
machine.

Threading: pure, but for looking at the machine.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

import psutil

from tests.bench.figures import KINDS, VIEWERS, Report

_PAGE = """# Performance

`make bench` measured this and wrote this page.
Ours and the peer's runs alternate within one run, on one file system, with two workers unless a line says otherwise;
each figure is the median. Lines may be of different runs: `make bench ARGS="-k mount"` measures some of them anew.
The load comes from the same machine, so what the clients take is missing to both sides.
What no ratio stands beside means something only beside another machine's run.

The machine: {machine}.

{table}

{missed}

## How it is measured

- **Transfers** are of 1 GiB of random bytes that are in memory; clients use sendfile(2) and throw away what they get.
  nginx keeps the bytes of a PUT and does nothing else; it takes them in pieces of 16 KiB as it comes, and here also in
  pieces of 1 MiB: then it copies them as fast as memory goes, which is faster than SHA-256 alone. glancefs computes
  that, and answers when bytes, name and row are on the disk. Each upload begins with memory that was in use a moment
  ago, as on the mount.
  "Unsynced" is glancefs with every sync switched off from outside (`eatmydata`).
- **HEAD** is by `ab`, lists and pairs by `wrk`, on connections that stay open.
- **Lists** are `GET /images/detail?limit=25`, for known users with `is_public=none`: all that they may see.
  The images are of all types, sizes and states, half of them public, and belong to a crowd.
- **Create + delete** is `POST` and `DELETE` of one image after the other by each client; not one request failed.
  Each answer comes after the commit is on the disk; commits of concurrent requests share one sync.
- **Slow uploads** send a few bytes ten times a second. Four clients ask beside them without a pause.
- **A mount of a server** is measured beside what else mounts the same server, by its WebDAV door, each as it comes and
  fresh each time. davfs2 fetches the whole of a file when it is opened, so opening counts; rclone reads a tenth as many
  places at random. Writing ends when the server has the whole file under its name.
- **WebDAV**: the peers run as they come, each with a log of requests, on folders of the same disk: Apache's `mod_dav`
  on `mpm_event`, nginx with its own module and dav-ext, `rclone serve webdav` without its cache, the command of
  wsgidav. Transfers are as above. Lists are of one folder with 10,000 files of 4 bytes, on a connection of their own;
  "as clients ask" names the five properties that they show (what kind, how large, when changed, when made, ETag).
  For all properties glancefs also sends the metadata of each image.
- **The mount** is root's, on a kernel that reads the store's files by itself. Everybody mounts the same file anew for
  each run. For bulk data each run begins with memory that was in use a moment ago: a virtual machine gives back to its
  host what lies free for seconds, and who starts slowest would pay for getting it. Beside readers, who asks for
  attributes is a process of its own, as they are. Small files are made on an ext4 that was just made, as `mkfs.ext4`
  makes it, with a journal.
- **Registries** are asked directly, without a server or a request around them; PostgreSQL and MariaDB run on the same
  machine and disk. A page is of all types and states that its reader may see; of the first page and one in the middle,
  the line has the one that suffers more from the million. Adding is by eight processes of four threads each, which
  wait for the disk at every image; no two of them ever met in a deadlock, and no revision was lost or used twice.
- **Memory** is resident memory, shared pages included, of each process.
"""

_SHARED: Final = (
    "the clients share the two cores with the server, so the figure follows what else the machine does in the run; "
)
_WHY: Final[dict[str, str]] = {
    "post-default": "nginx copies bytes, glancefs also hashes and syncs them.",
    "head": _SHARED
    + "a HEAD costs 70 µs in the door and the registry and about as much in the server, and threads that "
    "compete for the interpreter add to it.",
    "head-2": _SHARED + "two workers and the clients want three cores.",
    **dict.fromkeys(
        ("list-half", "list-few", "list-stranger", "list-anonymous"),
        _SHARED + "the page's cost beside 1,000 images is the deeper index alone, 1.1 to 1.2 times in processor time.",
    ),
    "dav-put-nginx": "the same bytes go the same way as by POST, and are hashed and synced as there.",
    "dav-list-all-apache": _SHARED
    + "Apache reads names from a folder of the disk; glancefs asks a database, and sends the metadata of each image "
    "besides, which is more than half of the answer.",
    **dict.fromkeys(
        ("dav-small-stock", "dav-look-stock"),
        _SHARED + "two workers and the clients want three cores, where wsgidav's one process takes one and a half.",
    ),
    **dict.fromkeys(
        ("mount-read", "mount-read-rclone"),
        _SHARED
        + "seven tenths of the daemon's time are the kernel's copy of the bytes into the reader's cache and what "
        "belongs to it; the daemon is one thread that takes turns with the reader, where others answer with several.",
    ),
    **dict.fromkeys(
        ("mount-reread", "mount-random-again"),
        _SHARED + "no request reaches the daemon: the kernel reads the store's file by itself, as it reads the peer's.",
    ),
    **dict.fromkeys(
        ("remote-read-rclone", "remote-read-davfs", "remote-random-rclone", "remote-random-davfs"),
        _SHARED + "the server, the mount and the reader want three cores.",
    ),
    **dict.fromkeys(
        ("remote-write-rclone", "remote-write-davfs"),
        _SHARED
        + "a file is written to this machine's disk and hashed there, so that it can be sent again and that its close "
        "tells of errors, is sent while it is written, and hashed and synced by the server: over three seconds of a "
        "core for each GiB, of which more than one is SHA-256 twice. rclone can't send again; davfs2 hashes nothing.",
    ),
    **dict.fromkeys(
        ("remote-ls-rclone", "remote-ls-davfs"),
        _SHARED
        + "each image is a line of JSON, which two interpreters write and read; the others ask for five properties and "
        "read them in C and Go.",
    ),
    "remote-cached": _SHARED
    + "a whole image in the cache is a file that the kernel reads by itself, as it reads that of the data folder.",
    "remote-cached-again": _SHARED
    + "no request reaches the daemon: the kernel answers from its cache, and FUSE's way to it is longer.",
    "dav-get-nginx": _SHARED + "the bytes leave by sendfile(2), the same way as those of the images API above.",
    "mount-stat": _SHARED
    + "reading an image changes its time of access, after which the kernel asks the daemon for its attributes, for "
    "which that needs a core that the readers have.",
    "idle": "half of it is SQLAlchemy and the interpreter, a tenth the parts of wsgidav.",
    "mount-random": "where the kernel can't read the store's file by itself, each 4 KiB is a request of its own, which "
    "takes some 45 µs of processor time, half of it in the interpreter and its event loop; passthrough_ll takes 10.",
    "mount-write": "passthrough_ll copies bytes and does nothing else; glancefs also hashes them, two fifths of its "
    "processor time, and begins to bring them to the disk, while it and the client share two cores.",
    "mount-create": _SHARED
    + "each file waits for three syncs, one after the other: of its bytes, of its folder, of the registry; "
    "and it takes 2 to 3 ms of processor time in the daemon, a third of it in the event loop, the rest for the row, "
    "the file, and what the close means.",
    "mount-ls": "each image takes 12 µs of processor time: 3 to read its row, 3 to ask for its blocks, the rest for "
    "its name, its numbers and the answer, partly while ls is at what it has; ext4 has all of it in the kernel.",
    **dict.fromkeys(
        (f"{kind}-list-{who}" for kind in KINDS for who in VIEWERS),
        _SHARED + "the page is read off one index in either registry, which is deeper where there are more images.",
    ),
    "start": _SHARED + "half a second of processor time goes into importing, of which SQLAlchemy is the half.",
}
"""Why a promise is not kept where it isn't; what is measured says whether it is."""


def page(report: Report) -> str:
    """Give the whole page."""
    missed = [measured for measured in report.measured.values() if measured.is_met is False]
    lines = [f"- **{found.figure.what}**: {_WHY.get(found.figure.key, 'not explained yet.')}" for found in missed]
    told = "\n".join(["## What is missed, and why", "", *lines]) if lines else "Every promise is kept."
    return _PAGE.format(machine=machine(), table=report.as_markdown(), missed=told)


def machine() -> str:
    """Describe this machine in words."""
    cores = os.cpu_count() or 1
    memory = round(psutil.virtual_memory().total / (1 << 30))
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    kind = "a virtual machine" if _is_virtual() else "a machine"
    return (
        f"{kind} with {cores} cores ({_processor()}), {memory} GiB of memory, {_file_system(Path.cwd())}, {system}, "
        f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _is_virtual() -> bool:
    return any(" hypervisor" in line for line in Path("/proc/cpuinfo").read_text().splitlines())


def _file_system(path: Path) -> str:
    device = path.stat().st_dev
    for partition in psutil.disk_partitions(all=True):
        point = Path(partition.mountpoint)
        if point.exists() and point.stat().st_dev == device:
            return f"{partition.fstype} on one disk"
    return "an unknown file system"
