# SPDX-License-Identifier: Apache-2.0
"""Whatever is asked of the images API, it is never the server that fails.

Threading: none.
"""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.rest import KERNEL, PUBLIC, Rest, RestMaker

LATIN = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=40)
PATHS = st.one_of(
    st.sampled_from(
        [
            "/images",
            "/images/",
            "/images/detail",
            "/images/1",
            "/images/2",
            "/v1/images",
            "/v1/images/2",
            "/v1/images/detail",
        ]
    ),
    LATIN.map(lambda text: f"/images/{text}"),
    LATIN.map(lambda text: f"/v1/{text}"),
    LATIN.map(lambda text: f"/{text}"),
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "BREW"])
FIELDS = st.sampled_from(
    [
        *(
            "name",
            "type",
            "id",
            "store",
            "size",
            "checksum",
            "is_public",
            "protected",
            "owner",
            "disk_format",
            "status",
        ),
        *("container_format", "virtual_size", "min_disk", "min_ram", "created_at", "deleted_at", "uri", "location"),
        *("purge-properties", "property-a", "property-", "property-%", "", "-"),
    ]
)
NAMES = st.one_of(
    FIELDS.map(lambda field: f"x-image-meta-{field}"),
    st.sampled_from(
        [
            *("Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "Accept"),
            *("Content-Type", "Content-Range", "Authorization", "Host", "Expect", "X-Glance-Registry-Purge-Props"),
        ]
    ),
)
VALUES = st.one_of(
    LATIN,
    st.sampled_from(
        [
            *(
                "bytes=0-",
                "bytes=-1",
                "bytes=5-1,0-0",
                "*",
                '"x"',
                "W/",
                "Thu, 01 Jan 1970 00:00:00 GMT",
                "multipart/x",
            ),
            *(
                "Wed, 99 Foo 9999999999 99:99:99 GMT",
                "application/octet-stream",
                "text/html",
                "sha256:",
                "kernel",
                "-1",
            ),
            *("9" * 19, "9" * 400, "true", "%00", "%FF%FE", "%", "%ED%A0%80", "2010-02-03 09:34:01", "0001-01-01"),
            *("Basic Og==", "Basic " + base64.b64encode(b"alice:\xff").decode()),
        ]
    ),
)
QUERIES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "limit",
                "marker",
                "name",
                "status",
                "sort_key",
                "sort_dir",
                "is_public",
                "changes-since",
                "property-a",
                "size_min",
            ]
        ),
        VALUES,
    ).map("=".join),
    max_size=3,
).map("&".join)


@pytest.fixture(scope="module")
def rest(make_shared_rest: RestMaker) -> Rest:
    """Give an API with an image and a queued one."""
    made = make_shared_rest()
    made.add(PUBLIC | {"x-image-meta-protected": "on"})
    made.add(KERNEL, None)
    return made


@settings(max_examples=300)
@given(
    method=METHODS,
    path=PATHS,
    query=QUERIES,
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=5),
    body=st.one_of(st.none(), st.binary(max_size=50), st.lists(st.binary(max_size=9), max_size=3)),
    user=st.sampled_from(["alice", "bob", "root", None]),
)
def test_no_request_makes_the_server_fail(
    *,
    rest: Rest,
    method: str,
    path: str,
    query: str,
    headers: list[tuple[str, str]],
    body: bytes | list[bytes] | None,
    user: str | None,
) -> None:
    # A warning in the log fails the test as well.
    reply = rest(method, f"{path}?{query}".replace("\n", ""), headers, body, user=user)
    assert 200 <= reply.status < 500
