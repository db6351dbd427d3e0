# SPDX-License-Identifier: Apache-2.0
"""The Swift store where Keystone says who is who: passwords, application credentials, tokens that are revoked.

Threading: none of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace

import pytest

from glancefs.errors import StoreUnavailable
from glancefs.stores.objects import ObjectStore
from glancefs.stores.swift import SwiftEngine
from glancefs.stores.swift_access import Credentials, SwiftAccess
from tests.contract.object_contract import PART
from tests.contract.store_steps import put, read, some_bytes
from tests.support.keystone import Account, Keystone
from tests.support.processes import Processes
from tests.support.swift import Swift, start_swift

pytestmark = pytest.mark.needs("keystone", "swift")

SERVICE_PASSWORD = "password-of-swift"


@pytest.fixture(scope="module")
def cluster(keystone: Keystone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """A cluster that asks Keystone about tokens, and is in its catalog."""
    keystone.account("swift", project="service", role="admin", password=SERVICE_PASSWORD)
    said = {
        "auth_url": keystone.url,
        "www_authenticate_uri": keystone.url,
        "auth_type": "password",
        "project_domain_name": "Default",
        "user_domain_name": "Default",
        "project_name": "service",
        "username": "swift",
        "password": SERVICE_PASSWORD,
    }
    folder = tmp_path_factory.mktemp("swift-of-keystone")
    with Processes(folder) as processes:
        started = start_swift(processes, folder / "cluster", keystone=said)
        keystone.service("swift", "object-store", f"{started.url}/v1/AUTH_%(tenant_id)s")
        yield started


@pytest.fixture(scope="module")
def account(cluster: Swift, keystone: Keystone) -> Account:
    return keystone.account("images", project="images")


def credentials_of(account: Account) -> Credentials:
    return Credentials(
        auth_url=account.url, version="3", user=account.user, key=account.password, project=account.project
    )


def make_store(credentials: Credentials, region: str | None = None) -> ObjectStore:
    access = SwiftAccess(credentials=credentials, region=region)
    engine = SwiftEngine(access=access, container=f"images-{secrets.token_hex(4)}")
    return ObjectStore(scheme="swift", engine=engine, part_size=PART, retries=3)


@pytest.mark.parametrize("kind", ["password", "application credential"])
def test_images_are_kept_by_whom_keystone_knows(account: Account, kind: str) -> None:
    credentials = credentials_of(account)
    if kind == "application credential":
        given, secret = account.application_credential()
        credentials = Credentials(auth_url=account.url, version="3", application_id=given, application_secret=secret)
    store = make_store(credentials, region="RegionOne")
    data = some_bytes(3 * PART)
    stored = put(store, data)
    assert read(store, stored) == data
    store.delete(stored.location)
    store.close()


def test_a_token_that_is_revoked_is_replaced_in_the_middle(account: Account, keystone: Keystone) -> None:
    store = make_store(credentials_of(account))
    data = some_bytes(9 << 20)
    stored = put(store, data)
    with store.open(stored.location) as stream:
        head = stream.read(1000)
        keystone.revoke(store._engine._access._session.get_token())  # type: ignore[attr-defined]  # the engine is Swift's
        assert head + stream.read() == data
    assert read(store, put(store, data)) == data
    store.close()


@pytest.mark.expect_log("failed at making its container: its login refuses the credentials")
@pytest.mark.expect_log("failed at making its container: its login names no object store|does not work as configured")
@pytest.mark.expect_log("failed at making its container: it answers 403")
def test_what_keystone_refuses_is_told_without_secrets(
    account: Account, keystone: Keystone, caplog: pytest.LogCaptureFixture
) -> None:
    reader = keystone.account("onlooker", project="images", role="reader")
    for credentials, region, message in (
        (replace(credentials_of(account), key="wrong-password"), None, "its login refuses the credentials"),
        (credentials_of(account), "Nowhere", "its login"),
        (credentials_of(reader), None, "it answers 403"),
    ):
        store = make_store(credentials, region)
        with pytest.raises(StoreUnavailable, match=message) as raised:
            put(store, b"data")
        assert str(credentials.key) not in f"{raised.value!r} {caplog.text}"
        store.close()


def test_credentials_are_in_no_representation(account: Account) -> None:
    credentials = replace(credentials_of(account), application_secret="hidden")
    assert account.password not in repr(credentials)
    assert "hidden" not in repr(credentials)
