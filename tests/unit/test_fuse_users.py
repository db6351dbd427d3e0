# SPDX-License-Identifier: Apache-2.0
"""Who of this machine is which user of glancefs.

Threading: none.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from glancefs.cli.remote_mount import RemoteMount
from glancefs.context import ANONYMOUS, LOCAL_USER, RequestContext
from glancefs.errors import ConfigError
from glancefs.fuse.options import read_options
from glancefs.fuse.users import NOBODY, Ids, Users, read_table

ADMIN = RequestContext(user=LOCAL_USER, is_admin=True)
UNUSED = 4_000_000_000
OTHER = next(entry for entry in pwd.getpwall() if entry.pw_uid not in {0, os.getuid()})


def table(folder: Path, text: str, *, mode: int = 0o644) -> Path:
    file = folder / "users"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_by_the_password_database_everybody_is_who_they_are() -> None:
    users = Users()
    assert users.known(OTHER.pw_uid) is None
    assert users.context_of(OTHER.pw_uid) == RequestContext(user=OTHER.pw_name)
    assert users.known(OTHER.pw_uid) == RequestContext(user=OTHER.pw_name)
    assert users.context_of(UNUSED) == ANONYMOUS
    assert users.ids_of(OTHER.pw_name) == Ids(OTHER.pw_uid, OTHER.pw_gid)
    assert users.ids_of("nobody of this name") == users.ids_of(None) == Ids(NOBODY, NOBODY)


def test_root_and_who_mounts_are_the_admin_of_this_machine() -> None:
    users = Users()
    assert users.context_of(0) == users.context_of(os.getuid()) == ADMIN
    assert users.ids_of(LOCAL_USER) == Ids(os.getuid(), os.getgid())
    assert users.ids_of("root") == Ids(NOBODY, NOBODY)


def test_a_stranger_of_the_admins_name_is_not_the_admin(monkeypatch: pytest.MonkeyPatch) -> None:
    impostor = pwd.struct_passwd((LOCAL_USER, "x", UNUSED, UNUSED, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: impostor)
    assert Users().context_of(UNUSED) == ANONYMOUS


def test_a_table_decides_alone(tmp_path: Path) -> None:
    text = f"# who is who\n\n{UNUSED} alice\n{OTHER.pw_name}\tthe builder   # bob\n"
    users = Users(table=read_table(table(tmp_path, text)))
    assert users.context_of(UNUSED) == RequestContext(user="alice")
    assert users.context_of(OTHER.pw_uid) == RequestContext(user="the builder")
    assert users.context_of(UNUSED - 1) == ANONYMOUS
    assert users.context_of(0) == ADMIN
    assert users.ids_of("alice") == Ids(UNUSED, NOBODY)
    assert users.ids_of("the builder") == Ids(OTHER.pw_uid, OTHER.pw_gid)
    assert users.ids_of(OTHER.pw_name) == Ids(NOBODY, NOBODY)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("alone\n", "line 1: a line names somebody"),
        ("1 a\n1 b\n", "line 2: .* for the second time"),
        ("1 a\n2 a\n", "line 2: .* for the second time"),
        ("nobody-of-this-name a\n", "there is no 'nobody-of-this-name'"),
    ],
)
def test_a_table_that_leaves_doubts_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        read_table(table(tmp_path, text))


def test_a_table_that_others_could_change_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="others could change it"):
        read_table(table(tmp_path, "1 a\n", mode=0o666))
    with pytest.raises(ConfigError, match="can't be read"):
        read_table(tmp_path / "none")


def test_options_of_several_users_go_together() -> None:
    options = read_options(["multiuser,users=/etc/glancefs.users"])
    assert options.multiuser
    assert options.allow_other
    assert "allow_other" in options.libfuse
    assert options.users == Path("/etc/glancefs.users")
    with pytest.raises(ConfigError, match="not as one user"):
        read_options(["multiuser,user=alice"])
    with pytest.raises(ConfigError, match="needs multiuser"):
        read_options(["users=/etc/glancefs.users"])
    with pytest.raises(ConfigError, match="multiuser is for data folders"):
        RemoteMount.of("http://127.0.0.1:1/", read_options(["multiuser"]))
