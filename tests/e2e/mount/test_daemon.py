# SPDX-License-Identifier: Apache-2.0
"""The daemon: how it starts, what it says when it can't, how it ends, and what it tells of itself."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.leaks import unmount
from tests.support.mounting import Mount, Mounts, eventually
from tests.support.processes import product, run


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A data folder and a mount point, which is cleared away afterwards."""
    data, point = tmp_path / "data", tmp_path / "point"
    data.mkdir()
    point.mkdir()
    yield data, point
    if os.path.ismount(point):
        unmount(point)


def test_in_the_background_it_returns_once_the_mount_answers(place: tuple[Path, Path]) -> None:
    data, point = place
    said = run([product(), "mount", data, point])
    assert (said.out, said.err) == ("", "")
    (point / "a").write_bytes(b"data")
    assert (point / "a").read_bytes() == b"data"
    pid = int(os.getxattr(point, "user.glance.mount.pid"))
    assert os.getsid(pid) != os.getsid(0)
    run([product(), "umount", point])
    assert not point.is_mount()
    # Where nobody waits for orphans, it stays as a zombie.
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere", "POINT"], "nowhere is neither a data folder nor a configuration file."),
        (["DATA", "nowhere"], "is no folder that could be mounted on."),
        (["DATA", "POINT", "-o", "allow_othr"], "'allow_othr' is no mount option; did you mean allow_other?"),
        (["DATA", "POINT", "-o", "umask=99"], "The mount option umask takes an octal number"),
        (["DATA", "POINT", "-o", "log=/nowhere/log"], "The log can't be written to /nowhere/log"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(words: list[str], sentence: str, place: tuple[Path, Path]) -> None:
    said = [str(place[0]) if word == "DATA" else str(place[1]) if word == "POINT" else word for word in words]
    told = run([product(), "mount", *said], expect=2)
    assert sentence in told.err
    assert told.err.count("\n") == 1


def test_a_registry_that_can_t_be_opened_is_told_by_the_parent(place: tuple[Path, Path]) -> None:
    data, point = place
    (data / "registry.sqlite").write_bytes(b"this is no database" * 100)
    told = run([product(), "mount", data, point], expect=None)
    assert told.returncode != 0
    assert told.err.count("\n") == 1
    assert not point.is_mount()


def test_a_mount_is_not_mounted_over(mounted: Mount) -> None:
    told = run([product(), "mount", mounted.data, mounted.point], expect=2)
    assert "is a mount of" in told.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(mounted: Mount, number: signal.Signals) -> None:
    with (mounted / "a").open("w+b") as file:
        file.write(b"data")
    mounted.process.send(number)
    assert mounted.process.wait() == 0
    assert not mounted.point.is_mount()
    assert mounted.content("a") == b"data"


def test_a_file_that_is_still_being_written_is_no_image_when_the_mount_ends(mounts: Mounts) -> None:
    mounted = mounts.mount()
    writer = subprocess.Popen(
        ["bash", "-c", f'exec 3>"{mounted.point}/a"; echo half >&3; echo ok; read line'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ok\n"
    mounted.process.send(signal.SIGTERM)
    assert mounted.process.wait(timeout=60) == 0
    writer.kill()
    writer.wait()
    writer.stdout.close()
    assert writer.stdin is not None
    writer.stdin.close()
    assert mounted.images() == []
    again = mounts.mount(point=mounted.point)
    assert (again / ".glance/pending/a").read_bytes() == b"half\n"


def test_umount_says_who_is_in_the_way(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"data")
    with (mounted / "a").open("rb"):
        told = run([product(), "umount", mounted.point], expect=1)
        assert "is busy" in told.err
        run([product(), "umount", "--lazy", "--timeout", "0", mounted.point], expect=None)
    assert mounted.process.wait() == 0
    assert not mounted.point.is_mount()


@pytest.mark.promise("A mount with `-o ro` refuses every change: EROFS.")
def test_a_read_only_mount_refuses_every_change(mounts: Mounts) -> None:
    mounted = mounts.mount()
    mounted.shell("mkdir d; echo data >d/a")
    mounted.end()
    mounted = mounts.mount(options=["ro"])
    for script in (
        "echo more >b",
        "rm d/a",
        "mv d/a b",
        "mkdir e",
        "rmdir d",
        "touch d/a",
        "echo x >d/a",
        "chmod 600 d/a",
        "setfattr -n user.glance.type -v kernel d/a",
        "truncate -s 0 d/a",
    ):
        assert "Read-only file system" in mounted.shell(script, expect=1).err
    assert (mounted / "d/a").read_text() == "data\n"


def test_options_say_whose_the_files_are(mounts: Mounts) -> None:
    mounted = mounts.mount(options=["uid=1234,gid=4321,umask=077"])
    mounted.shell("mkdir d; echo data >a")
    assert mounted.run("stat", "-c", "%a %u %g", "a", "d").out == "600 1234 4321\n700 1234 4321\n"


def test_a_mount_of_a_user_sees_what_that_user_may_see(mounts: Mounts) -> None:
    everything = mounts.mount()
    everything.shell("echo private >private; echo public >public")
    everything.run("setfattr", "-n", "user.glance.is_public", "-v", "true", "public")
    alices = mounts.mount(options=["user=alice"])
    assert sorted(path.name for path in alices.point.iterdir()) == ["public"]
    assert "not permitted" in alices.run("rm", "-f", "public", expect=1).err
    alices.shell("echo hers >hers")
    assert alices.image("hers").owner == "alice"
    eventually((everything / "hers").exists)


def test_images_of_a_public_mount_are_public(mounts: Mounts) -> None:
    mounted = mounts.mount(options=["public"])
    mounted.shell("echo data >a")
    assert mounted.image("a").is_public


def test_a_configuration_file_may_be_mounted(place: tuple[Path, Path]) -> None:
    data, point = place
    config = data.parent / "config.toml"
    config.write_text(f'data = "{data}"\nimage_ids = "uuid"\n')
    run([product(), "mount", config, point])
    (point / "a").write_bytes(b"data")
    assert len(os.getxattr(point / "a", "user.glance.id")) == 36
    run([product(), "umount", point])


def test_the_log_goes_to_a_file(place: tuple[Path, Path]) -> None:
    data, point = place
    log = data.parent / "mount.log"
    run([product(), "mount", data, point, "-o", f"log={log}"])
    pid = int(os.getxattr(point, "user.glance.mount.pid"))
    os.kill(pid, signal.SIGUSR1)
    eventually(lambda: f"pid={pid}" in log.read_text())
    run([product(), "umount", point])
    assert "Traceback" not in log.read_text()


def test_systemd_is_told(mounts: Mounts, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(20)
        mounted = mounts.mount(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert listening.recv(100) == b"READY=1"
        mounted.end()
        assert listening.recv(100) == b"STOPPING=1"


def test_statistics_tell_what_was_done(mounted: Mount) -> None:
    mounted.shell("head -c 3000000 /dev/urandom >a; cat a >/dev/null; ls -l >/dev/null")
    with (mounted / "a").open("rb"):
        numbers = mounted.statistics()
    assert numbers["pid"] == mounted.process.pid
    assert numbers["bytes_written"] == 3_000_000
    assert numbers["published"] == 1
    assert numbers["open_files"] == 1
    assert numbers["by_request"]["create"] == 1


def test_the_kernel_forgets_and_so_does_the_mount(mounted: Mount) -> None:
    mounted.shell("mkdir d; for i in $(seq 200); do echo $i >d/$i; done; ls -l d >/dev/null; rm -r d")
    mounted.shell("ls -la . >/dev/null")
    eventually(lambda: mounted.statistics()["inodes"] < 20)
    assert mounted.statistics()["open_folders"] == 0


def test_an_operation_that_means_nothing_is_refused_each_time(mounted: Mount) -> None:
    for _ in range(2):
        assert "not permitted" in mounted.run("mkfifo", "pipe", expect=1).err
        assert "not permitted" in mounted.run("mknod", "null", "c", "1", "3", expect=1).err


def test_errors_can_be_read_where_they_happened(mounted: Mount) -> None:
    assert (mounted / ".glance/errors").read_text() == ""
    assert json.loads((mounted / ".glance/stats").read_text())["requests"] > 0


def test_a_mount_can_be_made_and_ended_again_and_again(place: tuple[Path, Path]) -> None:
    data, point = place
    for number in range(3):
        run([product(), "mount", data, point])
        assert len(list(point.iterdir())) == number
        (point / str(number)).write_bytes(b"data")
        run([product(), "umount", point])
    assert not re.search(re.escape(str(point)), Path("/proc/self/mounts").read_text())
