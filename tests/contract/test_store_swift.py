# SPDX-License-Identifier: Apache-2.0
"""The store contract over `glancefs.stores.swift` on a real Swift, and what this store promises beyond it.

Threading: none of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing

import pytest
from swiftclient.client import Connection

from glancefs.stores.base import Store
from glancefs.stores.objects import ObjectStore, Timing
from glancefs.stores.swift import SwiftEngine
from glancefs.stores.swift_access import Credentials, SwiftAccess
from tests.contract.object_contract import PAGE, PART, ObjectStoreContract
from tests.support.swift import KEY, USER, Swift

MIB = 1024 * 1024
pytestmark = pytest.mark.needs("swift")


def swift_store(swift: Swift, container: str, *, part_size: int = PART, timing: Timing | None = None) -> ObjectStore:
    access = SwiftAccess(credentials=Credentials(auth_url=swift.auth_url, version="1", user=USER, key=KEY))
    engine = SwiftEngine(access=access, container=container, page_size=PAGE)
    return ObjectStore(scheme="swift", engine=engine, part_size=part_size, retries=3, timing=timing)


@pytest.fixture
def container() -> str:
    return f"images-{secrets.token_hex(4)}"


class TestSwiftStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, swift: Swift, container: str) -> Iterator[Store]:
        store = swift_store(swift, container)
        yield from self.checked(store)

    @pytest.fixture
    def small_store(self, swift: Swift, container: str) -> Iterator[Store]:
        with closing(Connection(swift.auth_url, USER, KEY)) as admin:
            admin.put_container(container, {"X-Container-Meta-Quota-Bytes": str(40 * MIB)})
        store = swift_store(swift, container)
        yield store
        store.close()
