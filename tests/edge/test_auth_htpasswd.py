# SPDX-License-Identifier: Apache-2.0
"""Who is asking: HTTP Basic against a file of users, and what each may.

Threading: some tests check passwords from several threads on purpose.
"""

import base64
import os
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest

from gateway.auth import HtpasswdAuth, NoAuth
from gateway.passwords import PasswordFile, RememberedPasswords
from glancefs.context import ANONYMOUS, RequestContext
from glancefs.errors import NotAuthenticated, Unavailable
from tests.support.rest import KERNEL, PUBLIC, MakeRest, Rest, basic, entry

CHALLENGE = 'Basic realm="glancefs", charset="UTF-8"'


# ---- through the API


def test_somebody_unknown_reads_what_is_public_and_nothing_else(rest: Rest) -> None:
    rest.add(PUBLIC)
    rest.add(KERNEL)
    assert rest("GET", "/images/1", user=None).body == b"data"
    assert rest.ids("/images/?is_public=none", user=None) == ["1"]
    assert rest("GET", "/images/2", user=None).status == 404
    for method, path in (("POST", "/images/"), ("PUT", "/images/1"), ("DELETE", "/images/1"), ("DELETE", "/images/2")):
        reply = rest(method, path, KERNEL, b"x", user=None)
        assert (reply.status, reply.code) == (401, "not-authenticated")
        assert reply.headers["www-authenticate"] == CHALLENGE


@pytest.mark.parametrize("path", ["/images/", "/images/1", "/v1/images", "/versions", "/metrics"])
def test_a_wrong_password_and_an_unknown_user_are_401_in_the_same_words(rest: Rest, path: str) -> None:
    rest.add(PUBLIC)
    bodies = set()
    for credentials in (basic("alice", "wrong"), basic("nobody", "wrong"), basic("alice", "")):
        reply = rest("GET", path, {"Authorization": credentials})
        assert reply.status == 401
        assert reply.headers["www-authenticate"] == CHALLENGE
        bodies.add(reply.body)
    assert len(bodies) == 1


@pytest.mark.parametrize(
    "header",
    [
        *("", "Basic", "Basic ", "Basic !!!", "Basic YWxpY2U", "Basic YWxpY2U=", "Bearer abc", "Basic " + "A" * 5000),
        *("Basic " + base64.b64encode(raw).decode() for raw in (b":", b":alice", b"\xff:x", b"alice", b"alice:\0")),
        *("alice:alice", "basic\talice", "Basic YWxp\xe9Y2U=", "Negotiate YWxpY2U6YWxpY2U="),
    ],
)
def test_a_malformed_authorization_is_401(make_rest: MakeRest, header: str) -> None:
    reply = make_rest()("GET", "/images/", {"Authorization": header})
    assert (reply.status, reply.headers["www-authenticate"]) == (401, CHALLENGE)


def test_the_name_of_the_scheme_has_no_case(rest: Rest) -> None:
    assert rest("GET", "/images/", {"Authorization": "bAsIc YWxpY2U6YWxpY2U="}).status == 200


def test_an_image_belongs_to_the_user_who_added_it(rest: Rest) -> None:
    assert rest.add(user="bob")["owner"] == "bob"


def test_without_authentication_everybody_is_the_local_admin() -> None:
    assert NoAuth().authenticate({"HTTP_AUTHORIZATION": "nonsense"}) == RequestContext(user="local", is_admin=True)
    assert NoAuth().challenge is None


# ---- the file of users


Auth = Callable[..., HtpasswdAuth]


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "htpasswd"
    file.write_text(entry("alice", "secret") + entry("root", "toor"))
    return file


@pytest.fixture
def auth(users: Path) -> HtpasswdAuth:
    return HtpasswdAuth(file=PasswordFile(path=users), remembered=RememberedPasswords(), admins=("root",))


def ask(auth: HtpasswdAuth, user: str, password: str) -> RequestContext:
    return auth.authenticate({"HTTP_AUTHORIZATION": basic(user, password)})


def is_right(auth: HtpasswdAuth, user: str, password: str) -> bool:
    try:
        return ask(auth, user, password).user == user
    except NotAuthenticated:
        return False


def replace_file(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def test_users_and_admins(auth: HtpasswdAuth) -> None:
    assert ask(auth, "alice", "secret") == RequestContext(user="alice", is_admin=False)
    assert ask(auth, "root", "toor") == RequestContext(user="root", is_admin=True)
    assert auth.authenticate({}) == ANONYMOUS


@pytest.mark.parametrize("variant", ["$2a$", "$2b$", "$2y$"])
def test_every_variant_of_bcrypt_is_understood(auth: HtpasswdAuth, users: Path, variant: str) -> None:
    replace_file(users, entry("alice", "secret").replace("$2b$", variant))
    assert is_right(auth, "alice", "secret")
    assert not is_right(auth, "alice", "Secret")


def test_names_and_passwords_may_be_any_text(auth: HtpasswdAuth, users: Path) -> None:
    replace_file(users, "# users\n\n" + entry("jürgen", "pass:wörd") + entry("long", "x" * 72))
    assert is_right(auth, "jürgen", "pass:wörd")
    assert is_right(auth, "long", "x" * 72)
    assert not is_right(auth, "long", "x" * 71)
    # bcrypt knows no more than 72 bytes of a password, as Apache's own tool does not.
    assert is_right(auth, "long", "x" * 100)


def test_a_user_who_is_removed_or_gets_another_password_is_out_at_once(auth: HtpasswdAuth, users: Path) -> None:
    assert is_right(auth, "alice", "secret")
    replace_file(users, entry("alice", "changed"))
    assert not is_right(auth, "alice", "secret")
    assert is_right(auth, "alice", "changed")
    replace_file(users, "")
    assert not is_right(auth, "alice", "changed")
    users.unlink()
    assert not is_right(auth, "alice", "changed")
    users.write_text(entry("alice", "secret"))
    assert is_right(auth, "alice", "secret")


@pytest.mark.expect_log("line 2 of .* is no bcrypt entry")
def test_entries_that_are_no_bcrypt_let_nobody_in(auth: HtpasswdAuth, users: Path) -> None:
    replace_file(users, entry("alice", "secret") + "bob:{SHA}Ys23Ag/5IOWqZCw9QGaVDdHwH00=\n")
    assert is_right(auth, "alice", "secret")
    assert not is_right(auth, "bob", "bar")


@pytest.mark.expect_log("the file of users can't be read")
def test_a_file_that_can_not_be_read_is_an_error_of_the_server(users: Path) -> None:
    users.unlink()
    users.mkdir()
    auth = HtpasswdAuth(file=PasswordFile(path=users), remembered=RememberedPasswords(), admins=())
    with pytest.raises(Unavailable):
        ask(auth, "alice", "secret")


@pytest.mark.skipif(not os.access("/usr/bin/htpasswd", os.X_OK), reason="Apache's htpasswd is not installed")
def test_entries_of_apaches_own_tool_are_understood(auth: HtpasswdAuth, users: Path) -> None:
    subprocess.run(["htpasswd", "-bB", "-C", "4", users, "carol", "hers"], check=True, capture_output=True)
    assert is_right(auth, "carol", "hers")


# ---- remembering


class Counting:
    """Counts bcrypts, and can hold them up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entries: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()
        self._check = bcrypt.checkpw
        monkeypatch.setattr(bcrypt, "checkpw", self)

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.entries.append(hashed)
        self.gate.wait(20)
        return self._check(password, hashed)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def test_a_right_password_is_checked_once_and_a_wrong_one_each_time(auth: HtpasswdAuth, counting: Counting) -> None:
    assert all(is_right(auth, "alice", "secret") for _ in range(5))
    assert len(counting.entries) == 1
    assert not any(is_right(auth, "alice", "wrong") for _ in range(3))
    assert len(counting.entries) == 4


def test_what_is_remembered_is_forgotten_when_it_was_not_used_for_a_while(users: Path, counting: Counting) -> None:
    now = [0.0]
    remembered = RememberedPasswords(seconds=60, clock=lambda: now[0])
    auth = HtpasswdAuth(file=PasswordFile(path=users), remembered=remembered, admins=())
    for now[0], checks in ((0.0, 1), (59.0, 1), (118.0, 1), (179.0, 2)):
        assert is_right(auth, "alice", "secret")
        assert len(counting.entries) == checks


def test_no_more_is_remembered_than_there_is_room_for(users: Path, counting: Counting) -> None:
    users.write_text("".join(entry(f"user{number}", "same") for number in range(4)))
    remembered = RememberedPasswords(most=2)
    auth = HtpasswdAuth(file=PasswordFile(path=users), remembered=remembered, admins=())
    for number in range(4):
        assert is_right(auth, f"user{number}", "same")
    assert len(remembered._known) == 2
    assert is_right(auth, "user3", "same")
    assert len(counting.entries) == 4
    assert is_right(auth, "user0", "same")
    assert len(counting.entries) == 5


def test_no_password_is_kept(users: Path) -> None:
    remembered = RememberedPasswords()
    auth = HtpasswdAuth(file=PasswordFile(path=users), remembered=remembered, admins=())
    assert is_right(auth, "alice", "secret")
    assert b"secret" not in b"".join(remembered._known)
    assert "secret" not in repr(vars(remembered))


def test_an_unknown_user_costs_what_a_known_one_costs(auth: HtpasswdAuth, counting: Counting) -> None:
    assert not is_right(auth, "alice", "wrong")
    assert not is_right(auth, "nobody", "wrong")
    known, unknown = counting.entries
    # The number of rounds is in the entry's first seven characters.
    assert known[:7] == unknown[:7] == b"$2b$04$"


def test_the_same_password_from_many_threads_is_checked_once(auth: HtpasswdAuth, counting: Counting) -> None:
    counting.gate.clear()
    with ThreadPoolExecutor(16) as pool:
        results = [pool.submit(is_right, auth, "alice", "secret") for _ in range(16)]
        counting.gate.set()
        assert all(result.result() for result in results)
    assert len(counting.entries) <= 2


def test_a_flood_of_wrong_passwords_is_refused_while_known_users_go_on(users: Path, counting: Counting) -> None:
    remembered = RememberedPasswords(checks=1, waiting=2)
    auth = HtpasswdAuth(file=PasswordFile(path=users), remembered=remembered, admins=())
    assert is_right(auth, "alice", "secret")
    counting.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(is_right, auth, "nobody", str(number)) for number in range(3)]
        while remembered._places._value:
            time.sleep(0.001)
        with pytest.raises(Unavailable):
            is_right(auth, "nobody", "one more")
        assert is_right(auth, "alice", "secret")
        counting.gate.set()
        assert not any(result.result() for result in waiting)
    assert is_right(auth, "root", "toor")
