# SPDX-License-Identifier: Apache-2.0
"""The options of a mount: ours, the kernel's, those of mount(8), and all others."""

from pathlib import Path

import pytest

from glancefs.errors import ConfigError
from glancefs.fuse.options import MountOptions, read_options


def test_without_options_there_are_defaults() -> None:
    assert read_options([]) == MountOptions()


def test_our_own_options_are_read() -> None:
    said = read_options(["ro,uid=1000,gid=100,umask=077", "user=alice,public,attr_timeout=5,entry_timeout=0.5"])
    assert (said.read_only, said.uid, said.gid, said.umask) == (True, 1000, 100, 0o077)
    assert (said.user, said.public, said.attr_timeout, said.entry_timeout) == ("alice", True, 5.0, 0.5)


def test_a_cache_has_a_folder_and_a_size() -> None:
    said = read_options(["cache=/var/cache/images,cache_size=1G"])
    assert (said.cache, said.cache_size) == (Path("/var/cache/images"), 1 << 30)
    assert (MountOptions().cache, MountOptions().cache_size) == (None, 20 << 30)


def test_a_later_option_wins() -> None:
    said = read_options(["ro,uid=1", "rw,uid=2"])
    assert (said.read_only, said.uid, said.libfuse) == (False, 2, frozenset())


def test_an_owner_may_be_named() -> None:
    said = read_options(["uid=root,gid=root"])
    assert (said.uid, said.gid) == (0, 0)


def test_the_kernel_gets_its_own_options_and_no_others() -> None:
    said = read_options(["ro,allow_other,noatime,nosuid,nodev,uid=5,relatime"])
    assert said.libfuse == {"ro", "allow_other", "noatime", "nosuid", "nodev"}


@pytest.mark.parametrize(
    "word", ["defaults", "noauto", "_netdev", "nofail", "x-systemd.automount", "user", "comment=a"]
)
def test_what_mount_and_systemd_say_to_each_other_is_swallowed(word: str) -> None:
    assert read_options([word]) == MountOptions()


def test_a_comma_may_be_part_of_a_value() -> None:
    assert read_options(["log=/tmp/a\\,b,ro"]).log == Path("/tmp/a,b")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("allow_othr", "did you mean allow_other?"),
        ("max_read=4096", "'max_read' is no mount option"),
        ("uid=nobody-of-that-name", "uid takes a user's number"),
        ("umask=9", "umask takes an octal number"),
        ("umask", "umask takes an octal number such as 022: umask=…"),
        ("attr_timeout=-1", "attr_timeout takes seconds"),
        ("attr_timeout=nan", "attr_timeout takes seconds"),
        ("cache_size=lots", "cache_size takes bytes, such as 20G"),
        ("ro=yes", "'ro' is no mount option"),
        ("user=", "user takes a user's name"),
    ],
)
def test_what_is_unknown_or_wrong_is_refused_by_name(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_options([text])
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
