# SPDX-License-Identifier: Apache-2.0
"""mount(8) and umount(8) on images: the real commands, with the helpers that `glancefs install-helpers` installs."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from glancefs import __version__
from tests.support.apart import NOBODY, Apart
from tests.support.mounting import eventually
from tests.support.processes import free_port
from tests.support.servers import RunningServer

pytestmark = pytest.mark.needs("apart", "fuse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A data folder and a mount point of one test."""

    data: Path
    point: Path


@pytest.fixture
def place(apart: Apart, request: pytest.FixtureRequest) -> Place:
    """A place of root's."""
    name = re.sub(r"\W+", "-", request.node.name).lower()
    return Place(data=apart.folder(f"{name}/data"), point=apart.folder(f"{name}/point"))


@pytest.fixture
def own_place(apart: Apart, request: pytest.FixtureRequest) -> Place:
    """A place of a plain user's."""
    name = re.sub(r"\W+", "-", request.node.name).lower()
    apart.folder(name)
    data, point = (apart.folder(f"{name}/{part}", owner=NOBODY) for part in ("data", "point"))
    return Place(data=data, point=point)


def test_images_are_mounted_by_their_type_and_unmounted_by_umount(apart: Apart, place: Place) -> None:
    told = apart.run("mount", "-v", "-n", "-t", "glancefs", place.data, place.point, "-o", "noatime", "-o", "uid=5")
    assert told.out == f"mount.glancefs: {place.data} is mounted on {place.point}.\n"
    source, file_system, options = (apart.mounted(place.point) or "").split()
    assert (source, file_system) == (str(place.data), "fuse.glancefs")
    assert {"rw", "noatime", "user_id=0", "default_permissions"} <= set(options.split(","))
    apart.run("bash", "-c", f"echo data >{place.point}/a")
    assert apart.run("stat", "-c", "%u %s", place.point / "a").out == "5 5\n"
    apart.run("umount", place.point)
    assert apart.mounted(place.point) is None


def test_a_configuration_file_is_a_source_and_the_kernel_s_name_a_type(apart: Apart, place: Place) -> None:
    config = place.data.with_name("config.toml")
    apart.write(config, f'data = "{place.data}"\n')
    apart.run("mount", "-r", "-t", "fuse.glancefs", config, place.point)
    source, file_system, options = (apart.mounted(place.point) or "").split()
    assert (source, file_system) == (str(config), "fuse.glancefs")
    assert "ro" in options.split(",")
    assert "Read-only" in apart.run("touch", place.point / "a", expect=1).err
    apart.run("umount", place.point)


def test_a_server_is_a_source_for_mount_and_for_fstab(apart: Apart, place: Place, server: RunningServer) -> None:
    fstab = place.data.with_name("fstab")
    apart.write(fstab, f"{server.url} {place.point} glancefs staging={place.data}/staging,_netdev,nofail 0 0\n")
    for _ in range(2):
        assert apart.run("mount", "-a", "-T", fstab, bare=True).err == ""
        assert len(apart.run("findmnt", "-n", "--mountpoint", place.point).out.splitlines()) == 1
    assert (apart.mounted(place.point) or "").split()[:2] == [server.url, "fuse.glancefs"]
    apart.run("bash", "-c", f"echo data >{place.point}/over-mount8 && rm {place.point}/over-mount8")
    apart.run("umount", place.point)
    nobody = f"http://127.0.0.1:{free_port()}/"
    told = apart.run("mount", "-t", "glancefs", nobody, place.point, expect=32)
    assert told.err.count("\n") == 1


def test_fstab_mounts_all_that_it_names_and_no_more_the_second_time(apart: Apart, place: Place) -> None:
    blank = apart.folder(f"{place.data.parent.name}/with blank")
    fstab = place.data.with_name("fstab")
    options = "defaults,_netdev,nofail,x-systemd.automount,x-systemd.idle-timeout=60,comment=ours,umask=027"
    escaped = str(blank).replace(" ", "\\040")
    apart.write(
        fstab,
        f"{place.data} {place.point} glancefs {options} 0 0\n"
        f"{escaped} {escaped} fuse.glancefs noauto 0 0\n"
        f"{place.data} {escaped} glancefs ro,users 0 0\n",
    )
    for _ in range(2):
        assert apart.run("mount", "-a", "-T", fstab).err == ""
        told = apart.run("findmnt", "-n", "-r", "-o", "SOURCE,FSTYPE", "-t", "fuse.glancefs").out.splitlines()
        assert told == [f"{place.data} fuse.glancefs"] * 2
    assert apart.run("stat", "-c", "%a", place.point).out == "750\n"
    assert {"ro", "nosuid", "nodev", "noexec"} <= set((apart.mounted(blank) or "").split()[-1].split(","))
    apart.run("umount", "-a", "-t", "fuse.glancefs")
    assert apart.mounted(place.point) is None


def test_a_line_that_fails_keeps_none_of_the_others_from_being_mounted(apart: Apart, place: Place) -> None:
    fstab = place.data.with_name("fstab")
    other = apart.folder(f"{place.data.parent.name}/other")
    apart.write(
        fstab,
        f"/nowhere {other} glancefs nofail,_netdev 0 0\n{place.data} {place.point} glancefs defaults 0 0\n",
    )
    # mount(8): 64, some mounts succeeded.
    told = apart.run("mount", "-a", "-T", fstab, expect=64)
    assert told.err == "glancefs: /nowhere is neither a data folder nor a configuration file.\n"
    assert apart.mounted(place.point) is not None
    apart.run("umount", place.point)


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (
            "-o ro,allow_othr DATA POINT",
            1,
            "mount.glancefs: 'allow_othr' is no mount option; did you mean allow_other?",
        ),
        (
            "-o umask=9 DATA POINT",
            1,
            "mount.glancefs: The mount option umask takes an octal number such as 022, not '9'.",
        ),
        ("-o remount,ro DATA POINT", 1, "mount.glancefs: a mount of images can't be changed while it lasts; "),
        ("/nowhere POINT", 32, "glancefs: /nowhere is neither a data folder nor a configuration file."),
        ("DATA POINT/nowhere", 32, "glancefs: POINT/nowhere is no folder that could be mounted on."),
    ],
)
def test_what_can_t_be_mounted_is_told_in_one_line(
    words: str, status: int, sentence: str, apart: Apart, place: Place
) -> None:
    said = words.replace("DATA", str(place.data)).replace("POINT", str(place.point)).split()
    told = apart.run("mount", "-t", "glancefs", *said, expect=status)
    assert told.err.startswith(sentence.replace("POINT", str(place.point)))
    assert told.err.count("\n") == 1
    assert apart.mounted(place.point) is None


def test_nothing_is_mounted_over_a_mount_that_lives_and_anything_over_a_dead_one(apart: Apart, place: Place) -> None:
    mount = ("mount", "-t", "glancefs", place.data, place.point)
    apart.run(*mount)
    told = apart.run(*mount, expect=32)
    assert f"{place.point} is a mount of {place.data} already" in told.err
    pid = apart.run("getfattr", "-n", "user.glance.mount.pid", "--only-values", place.point).out
    apart.run("kill", "-KILL", pid)
    eventually(lambda: "not connected" in apart.run("ls", place.point, expect=None).err)
    apart.run(*mount)
    assert len(apart.run("findmnt", "-n", "--mountpoint", place.point).out.splitlines()) == 1
    apart.run("umount", place.point)


def test_a_fake_mount_is_checked_and_not_made(apart: Apart, place: Place) -> None:
    told = apart.run("mount", "-f", "-v", "-t", "glancefs", place.data, place.point)
    assert "can be mounted" in told.out
    assert apart.mounted(place.point) is None
    apart.run("mount", "-f", "-t", "glancefs", "/nowhere", place.point, expect=32)


def test_a_sloppy_mount_passes_over_options_that_there_are_not(apart: Apart, place: Place) -> None:
    words = ("-f", "-t", "glancefs", place.data, place.point, "-o")
    apart.run("mount", "-s", *words, "ro,allow_othr,umask=077")
    assert "umask takes" in apart.run("mount", "-s", *words, "allow_othr,umask=9", expect=1).err


def test_the_helpers_need_no_environment(apart: Apart, place: Place) -> None:
    apart.run("/sbin/mount.glancefs", place.data, place.point, "-n", "-o", "rw", bare=True)
    apart.run("bash", "-c", f"echo data >{place.point}/a")
    told = apart.run("/sbin/umount.glancefs", "-n", place.point, bare=True)
    assert (told.out, told.err) == ("", "")
    assert apart.mounted(place.point) is None
    assert "is no mount of glancefs" in apart.run("/sbin/umount.glancefs", place.point, expect=32).err


def test_the_helpers_tell_how_they_are_used(apart: Apart) -> None:
    assert apart.run("/sbin/umount.glancefs", "-V").out == f"umount.glancefs {__version__}\n"
    assert "usage: mount.glancefs SOURCE FOLDER" in apart.run("/sbin/mount.fuse.glancefs", "-h").out


def test_a_busy_mount_is_unmounted_lazily_alone(apart: Apart, place: Place) -> None:
    apart.run("mount", "-t", "glancefs", place.data, place.point)
    script = f'cd {place.point}; /sbin/umount.glancefs {place.point}; echo "ended with $?" >&2'
    assert re.search("is busy.*\nended with 32\n$", apart.run("bash", "-c", script).err)
    apart.run("bash", "-c", f"cd {place.point}; /sbin/umount.glancefs -l {place.point}")
    assert apart.mounted(place.point) is None


def test_a_plain_user_mounts_by_a_line_of_fstab_that_says_so(apart: Apart, own_place: Place) -> None:
    data, point = own_place.data, own_place.point
    apart.write(Path("/etc/fstab"), f"{data} {point} glancefs user,noauto 0 0\n")
    apart.run("mount", point, user=NOBODY)
    source, file_system, options = (apart.mounted(point) or "").split()
    assert (source, file_system) == (str(data), "fuse.glancefs")
    assert {"nosuid", "nodev", "noexec", "user_id=65534"} <= set(options.split(","))
    apart.run("bash", "-c", f"echo data >{point}/a", user=NOBODY)
    assert apart.run("stat", "-c", "%U %s", point / "a", user=NOBODY).out == "nobody 5\n"
    assert "ermission denied" in apart.run("ls", point, expect=2).err
    assert apart.run("umount", point, user="daemon", expect=32).err
    apart.run("umount", point, user=NOBODY)
    assert apart.mounted(point) is None


def test_a_plain_user_lets_others_in_where_the_machine_permits_it(apart: Apart, own_place: Place) -> None:
    mount = (sys.executable, "-I", "-m", "glancefs", "mount", "-o", "allow_other", own_place.data, own_place.point)
    assert "user_allow_other" in apart.run(*mount, user=NOBODY, expect=2).err
    apart.run("sed", "-i", "s/^#user_allow_other/user_allow_other/", "/etc/fuse.conf")
    apart.run(*mount, user=NOBODY)
    apart.run("bash", "-c", f"echo data >{own_place.point}/a", user=NOBODY)
    assert apart.run("ls", own_place.point).out == "a\n"
    apart.run(sys.executable, "-I", "-m", "glancefs", "umount", own_place.point, user=NOBODY)
    assert apart.mounted(own_place.point) is None


def test_a_mount_goes_into_the_namespace_that_is_named(apart: Apart, place: Place) -> None:
    script = (
        "unshare --mount --propagation private sleep infinity & "
        'while [ "$(readlink /proc/$!/ns/mnt)" = "$(readlink /proc/self/ns/mnt)" ]; do sleep 0.02; done; '
        f"mount -N $! -t glancefs {place.data} {place.point} && findmnt -N $! -n -o FSTYPE {place.point} && "
        f"umount -N $! {place.point}; kill $!"
    )
    assert apart.run("bash", "-c", script).out == "fuse.glancefs\n"
    assert apart.mounted(place.point) is None
