# SPDX-License-Identifier: Apache-2.0
"""Users and projects of a real Keystone at a real server: who owns what, and what happens when Keystone is away.

Threading: none of its own.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.keystone import Account, Keystone
from tests.support.mounting import eventually
from tests.support.processes import Argument, Processes, product, run
from tests.support.servers import Reply, RunningServer, start_server

pytestmark = pytest.mark.needs("keystone")

RAW = {"x-image-meta-type": "raw", "content-type": "application/octet-stream"}


@dataclass(slots=True, kw_only=True)
class Cloud:
    """A server that asks a Keystone, and some who are known there."""

    keystone: Keystone
    server: RunningServer
    service: Account
    alice: Account
    ally: Account
    """In the project of alice."""
    bob: Account
    admin: Account


@pytest.fixture(scope="module")
def cloud(keystone: Keystone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    service = keystone.account("glance", project="service", role="service")
    with Processes(folder) as processes:
        server = start_server(processes, folder / "data", env=environment(keystone.url, service))
        keystone.service("glance", "image", server.url)
        yield Cloud(
            keystone=keystone,
            server=server,
            service=service,
            alice=keystone.account("alice", project="wonderland"),
            ally=keystone.account("ally", project="wonderland", role="member"),
            bob=keystone.account("bob", project="building", role="member"),
            admin=keystone.account("root", project="building", role="admin"),
        )


def environment(url: str, service: Account, **said: str) -> dict[str, str]:
    options = {"url": url, "password": service.password, "timeout": "60", "cache_seconds": "300"} | said
    named = {f"GLANCEFS_AUTH_KEYSTONE_{name.upper()}": value for name, value in options.items()}
    return {"GLANCEFS_AUTH_MODE": "keystone"} | named


def by(account: Account) -> dict[str, str]:
    return {"X-Auth-Token": account.token()}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def post(server: RunningServer, headers: dict[str, str], name: str = "a", *, is_public: bool = False) -> Reply:
    said = {"x-image-meta-name": name, "x-image-meta-is_public": str(is_public)}
    return server.ask("POST", "/images", RAW | said | headers, b"data")


def test_projects_own_images(cloud: Cloud) -> None:
    ask = cloud.server.ask
    mine = post(cloud.server, by(cloud.alice), "mine").image
    assert mine["owner"] == cloud.alice.project_id
    path = f"/images/{mine['id']}"
    assert ask("GET", path, by(cloud.ally)).body == b"data"
    assert ask("PUT", path, by(cloud.ally) | {"x-image-meta-name": "ours"}).image["name"] == "ours"
    for stranger in (by(cloud.bob), {}):
        assert ask("GET", path, stranger).status == 404
    assert ask("PUT", path, by(cloud.bob) | {"x-image-meta-name": "theirs"}).status == 404
    assert ask("GET", path, by(cloud.admin)).body == b"data"
    assert ask("PUT", path, by(cloud.admin) | {"x-image-meta-is_public": "true"}).status == 200
    assert ask("PUT", path, by(cloud.bob) | {"x-image-meta-name": "theirs"}).status == 403
    assert ask("GET", path).body == b"data"
    assert ask("DELETE", path, by(cloud.ally)).status in {200, 204}


def test_who_brings_no_token_reads_what_is_public_and_no_more(cloud: Cloud) -> None:
    assert post(cloud.server, {}).status == 401
    assert cloud.server.ask("GET", "/images").status == 200
    assert cloud.server.ask("GET", "/metrics").status == 401
    assert cloud.server.ask("GET", "/metrics", by(cloud.alice)).status == 403
    assert cloud.server.ask("GET", "/metrics", by(cloud.admin)).status == 200


@pytest.mark.parametrize(
    "token", ["nonsense", "", "gAAAA" + "x" * 200, "x" * 7000], ids=["word", "empty", "alike", "long"]
)
def test_a_token_that_is_none_is_refused(cloud: Cloud, token: str) -> None:
    refused = cloud.server.ask("GET", "/images", {"X-Auth-Token": token})
    assert (refused.status, refused.json["type"]) == (401, "urn:glancefs:error:not-authenticated")
    assert refused.headers["www-authenticate"] == (
        f'Basic realm="glancefs", charset="UTF-8", Keystone uri="{cloud.keystone.url}"'
    )


def test_what_a_caller_says_about_their_token_counts_for_nothing(cloud: Cloud) -> None:
    said = {"X-Roles": "admin", "X-Project-Id": cloud.bob.project_id, "X-Identity-Status": "Confirmed"}
    assert post(cloud.server, said).status == 401
    image = post(cloud.server, by(cloud.alice) | said).image
    assert image["owner"] == cloud.alice.project_id
    assert cloud.server.ask("GET", "/metrics", by(cloud.alice) | said).status == 403


def test_a_token_of_no_project_owns_nothing(cloud: Cloud) -> None:
    auth = {"identity": {"methods": ["password"], "password": {"user": {}}}}
    auth["identity"]["password"] = {"user": {"id": cloud.bob.user_id, "password": cloud.bob.password}}
    said = cloud.keystone.admin.post(f"{cloud.keystone.url}/auth/tokens", json={"auth": auth}, authenticated=False)
    refused = cloud.server.ask("GET", "/images", {"X-Auth-Token": said.headers["X-Subject-Token"]})
    assert (refused.status, "for no project" in refused.json["detail"]) == (401, True)


def test_programs_that_know_basic_alone_use_application_credentials(cloud: Cloud) -> None:
    key, secret = cloud.alice.application_credential()
    image = post(cloud.server, basic(key, secret), "by basic").image
    assert image["owner"] == cloud.alice.project_id
    assert cloud.server.ask("GET", f"/images/{image['id']}", basic(key, secret)).body == b"data"
    for user, password in ((key, "wrong"), ("nobody", secret), ("alice", cloud.alice.password), (key, "x" + secret)):
        assert cloud.server.ask("GET", "/images", basic(user, password)).status == 401
    assert cloud.server.ask("GET", "/images", {"Authorization": "Bearer x"}).status == 401


def test_an_application_credential_may_do_what_its_rules_say(cloud: Cloud) -> None:
    rules = [{"service": "image", "method": "GET", "path": "/images"}]
    key, secret = cloud.alice.application_credential(access_rules=rules)
    assert cloud.server.ask("GET", "/images", basic(key, secret)).status == 200
    assert post(cloud.server, basic(key, secret)).status == 401
    assert cloud.server.ask("GET", "/images/detail", basic(key, secret)).status == 401


@pytest.mark.needs("curl")
def test_curl_uses_webdav_with_an_application_credential(cloud: Cloud, tmp_path: Path) -> None:
    key, secret = cloud.alice.application_credential()
    share, disk = f"{cloud.server.url}/dav", os.urandom(300_000)
    (tmp_path / "disk.raw").write_bytes(disk)

    def curl(who: str, *words: Argument) -> str:
        said = ["curl", "--silent", "--output", "got", "--write-out", "%{http_code}", "--user", who]
        return run([*said, *words], cwd=tmp_path, timeout=150).out

    mine = f"{key}:{secret}"
    assert curl(mine, "--request", "MKCOL", f"{share}/by-curl/") == "201"
    assert curl(mine, "--upload-file", "disk.raw", f"{share}/by-curl/disk.raw") == "201"
    assert curl(mine, f"{share}/by-curl/disk.raw") == "200"
    assert (tmp_path / "got").read_bytes() == disk
    # It is an image of the project, for whoever else has a token of it, at every door.
    found = cloud.server.ask("GET", "/images/detail?name=by-curl/disk.raw&is_public=none", by(cloud.ally)).json[
        "images"
    ]
    assert [image["owner"] for image in found] == [cloud.alice.project_id]
    assert cloud.server.ask("GET", "/dav/by-curl/disk.raw", by(cloud.ally)).body == disk
    theirs = ":".join(cloud.bob.application_credential())
    assert curl(theirs, f"{share}/by-curl/disk.raw") == "404"
    # Neither a user's own password nor a wrong secret, and a challenge that clients answer with a name and a password.
    for stranger in (f"alice:{cloud.alice.password}", f"{key}:x{secret}"):
        assert curl(stranger, "--request", "PROPFIND", f"{share}/") == "401"
    refused = cloud.server.ask("MKCOL", "/dav/by-nobody/")
    assert (refused.status, refused.headers["www-authenticate"].split()[0]) == (401, "Basic")


@pytest.mark.needs("rclone")
def test_rclone_uses_webdav_with_an_application_credential(cloud: Cloud, tmp_path: Path) -> None:
    key, secret = cloud.alice.application_credential()
    data = {f"disk-{number}.raw": os.urandom(10_000) for number in range(8)}
    for folder in ("there", "back"):
        (tmp_path / folder).mkdir()
    for name, content in data.items():
        (tmp_path / "there" / name).write_bytes(content)
    env = {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_DAV_TYPE": "webdav",
        "RCLONE_CONFIG_DAV_URL": f"{cloud.server.url}/dav",
        "RCLONE_CONFIG_DAV_VENDOR": "owncloud",
        "RCLONE_CONFIG_DAV_USER": key,
        "RCLONE_CONFIG_DAV_PASS": run(["rclone", "obscure", "-"], stdin=secret.encode()).out.strip(),
    }
    run(["rclone", "copy", tmp_path / "there", "dav:by-rclone"], env=env, timeout=300)
    run(["rclone", "check", tmp_path / "there", "dav:by-rclone"], env=env, timeout=300)
    run(["rclone", "copy", "dav:by-rclone", tmp_path / "back"], env=env, timeout=300)
    assert {file.name: file.read_bytes() for file in (tmp_path / "back").iterdir()} == data
    # The token of the credential is kept: requests do not ask Keystone each.
    cloud.keystone.process.freeze()
    try:
        listed = run(["rclone", "lsf", "dav:by-rclone"], env=env, timeout=300).out
    finally:
        cloud.keystone.process.thaw()
    assert listed.split() == sorted(data)
    stranger = env | {"RCLONE_CONFIG_DAV_USER": key[:-1]}
    refused = run(["rclone", "--retries", "1", "lsf", "dav:"], env=stranger, expect=None, timeout=300)
    assert (refused.returncode, "401" in refused.err) == (1, True)


def test_neither_tokens_nor_secrets_are_logged(cloud: Cloud) -> None:
    token, (key, secret) = {"X-Auth-Token": cloud.bob.new_token()}, cloud.bob.application_credential()
    post(cloud.server, token)
    post(cloud.server, basic(key, secret))
    post(cloud.server, basic(key, "wrong-secret"))
    log = cloud.server.process.log()
    for word in (token["X-Auth-Token"], secret, "wrong-secret", cloud.service.password):
        assert word not in log
    assert "Traceback" not in log


def test_the_command_of_openstack_works_with_tokens(cloud: Cloud, tmp_path: Path) -> None:
    data = os.urandom(100_000)
    (tmp_path / "disk.raw").write_bytes(data)
    known = {
        "OS_AUTH_URL": cloud.keystone.url,
        "OS_USERNAME": "alice",
        "OS_PASSWORD": cloud.alice.password,
        "OS_PROJECT_NAME": "wonderland",
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_IMAGE_API_VERSION": "1",
    }
    formats = ["--disk-format", "raw", "--container-format", "bare"]
    # Where the images are, it learns from Keystone's catalog.
    run(
        [product("glance"), "image-create", "--name", "by glance", *formats, "--file", tmp_path / "disk.raw"], env=known
    )
    assert "by glance" in run([product("glance"), "image-list"], env=known, stdin=b"").out
    run([product("glance"), "image-download", "by glance", "--file", tmp_path / "got"], env=known)
    assert (tmp_path / "got").read_bytes() == data
    other = known | {"OS_USERNAME": "bob", "OS_PASSWORD": cloud.bob.password, "OS_PROJECT_NAME": "building"}
    assert "by glance" not in run([product("glance"), "image-list"], env=other).out


def test_keystone_may_be_away_for_a_while(cloud: Cloud, processes: Processes, tmp_path: Path) -> None:
    # This server asks with an application credential of its own, and is not patient.
    key, secret = cloud.service.application_credential()
    env = environment(
        cloud.keystone.url, cloud.service, credential_id=key, credential_secret=secret, password="", timeout="4"
    )
    server = start_server(processes, tmp_path / "data", env=env)
    known, by_basic = by(cloud.alice), basic(*cloud.alice.application_credential())
    unknown, late = {"X-Auth-Token": cloud.alice.new_token()}, basic(*cloud.alice.application_credential())
    _expect_success_soon(server, known, by_basic)
    cloud.keystone.process.freeze()
    try:
        assert post(server, known).status == post(server, by_basic).status == 201
        assert server.ask("GET", "/images").status == 200
        # At once, since it is waiting that takes its time.
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda headers: post(server, headers), (unknown, late)))
        for away in answers:
            assert (away.status, away.json["type"]) == (503, "urn:glancefs:error:unavailable")
            assert away.headers["retry-after"] == "5"
            assert cloud.keystone.url in away.json["detail"]
    finally:
        cloud.keystone.process.thaw()
    _expect_success_soon(server, unknown, late)
    assert secret not in run([product(), "config", "show"], env=env).out + server.process.log()


def _expect_success_soon(server: RunningServer, *callers: dict[str, str]) -> None:
    for headers in callers:
        eventually(lambda headers=headers: post(server, headers).status == 201, patience=150)  # type: ignore[misc]  # the loop's own


def test_what_is_missing_is_said_at_the_start(tmp_path: Path) -> None:
    refused = run([product(), "serve", "--data", tmp_path], env={"GLANCEFS_AUTH_MODE": "keystone"}, expect=2)
    assert "needs auth.keystone.password" in refused.err
