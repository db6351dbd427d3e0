# SPDX-License-Identifier: Apache-2.0
"""The store contract over `glancefs.stores.s3`, on the S3 API of a real Swift.

Threading: none of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from swiftclient.client import Connection

from glancefs.stores.base import Store
from glancefs.stores.objects import ObjectStore, Timing
from glancefs.stores.pipeline import BLOCK
from glancefs.stores.s3 import S3Engine, S3Settings, make_client
from tests.contract.object_contract import PAGE, PART, ObjectStoreContract
from tests.support.swift import KEY, USER, Swift

pytestmark = pytest.mark.needs("swift")


def s3_settings(swift: Swift, bucket: str) -> S3Settings:
    return S3Settings(
        bucket=bucket,
        endpoint_url=swift.url,
        region="us-east-1",
        access_key=USER,
        secret_key=KEY,
        path_style=True,
        page_size=PAGE,
    )


def s3_store(settings: S3Settings, client: object, *, timing: Timing | None = None) -> ObjectStore:
    engine = S3Engine(settings, client=client)
    return ObjectStore(scheme="s3", engine=engine, part_size=PART, retries=3, timing=timing)


@pytest.fixture
def bucket() -> str:
    return f"images-{secrets.token_hex(4)}"


@pytest.fixture(scope="module")
def client(swift: Swift) -> Iterator[Any]:
    client = make_client(s3_settings(swift, "any"))
    yield client
    client.close()


class TestS3Store(ObjectStoreContract):
    @pytest.fixture
    def store(self, swift: Swift, bucket: str, client: object) -> Iterator[Store]:
        yield from self.checked(s3_store(s3_settings(swift, bucket), client))

    @pytest.fixture
    def small_store(self, swift: Swift, bucket: str, client: object) -> Store:
        with closing(Connection(swift.auth_url, USER, KEY)) as admin:
            admin.put_container(bucket, {"X-Container-Meta-Quota-Bytes": str(40 * BLOCK)})
        return s3_store(s3_settings(swift, bucket), client)
