# SPDX-License-Identifier: Apache-2.0
"""Headers, queries and ranges of the images API, read by pure functions.

Threading: none.
"""

import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.conditions import failed_condition, range_applies
from gateway.ranges import MOST_RANGES, ByteRange, Multipart, wanted_ranges
from gateway.rest.dialect import SEED, V1, Dialect
from gateway.rest.fields import new_image, read_number, said_in
from gateway.rest.queries import list_request, read_time
from gateway.wsgi import Request
from glancefs.errors import InvalidQuery, InvalidRequest
from glancefs.headers import encode_header_value
from glancefs.model import ImageStatus, property_key

HEADER_BYTES = st.binary(max_size=60).filter(lambda raw: not set(raw) & {0, 10, 13})
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1, max_size=20)
DIALECTS = st.sampled_from([SEED, V1])


def request(headers: Iterable[tuple[bytes, bytes]] = (), query: str = "") -> Request:
    fields = tuple(headers)
    environ = {"REQUEST_METHOD": "POST", "glancefs.header_fields": fields, "QUERY_STRING": query}
    for name, value in fields:
        environ["HTTP_" + name.decode("latin-1").upper().replace("-", "_")] = value.decode("latin-1")
    return Request(environ)


@given(name=TEXT.filter(bool), value=TEXT, key=KEYS)
def test_name_and_properties_come_back_exactly_for_every_text(name: str, value: str, key: str) -> None:
    said = said_in(
        request(
            [
                (b"X-Image-Meta-Name", encode_header_value(name).encode()),
                (b"x-image-meta-type", b"raw"),
                (b"x-image-meta-property-" + key.encode(), encode_header_value(value).encode()),
            ]
        ),
        SEED,
    )
    new = new_image(said, SEED)
    assert new.name == name
    assert new.properties == {property_key(key): value}


@given(
    dialect=DIALECTS,
    headers=st.lists(
        st.tuples(
            st.one_of(
                KEYS.map(lambda key: f"x-image-meta-{key}".encode()),
                KEYS.map(lambda key: f"x-image-meta-property-{key}".encode()),
                st.sampled_from(
                    [
                        f"x-image-meta-{field}".encode()
                        for field in ("name", "type", "id", "size", "is_public", "min_disk")
                    ]
                ),
            ),
            HEADER_BYTES,
        ),
        max_size=8,
    ),
)
def test_no_header_brings_more_than_a_plain_refusal(dialect: Dialect, headers: list[tuple[bytes, bytes]]) -> None:
    with contextlib.suppress(InvalidRequest):
        assert new_image(said_in(request(headers), dialect), dialect).name


@given(dialect=DIALECTS, query=st.text(st.characters(max_codepoint=255), max_size=200))
def test_no_query_brings_more_than_a_plain_refusal(dialect: Dialect, query: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert list_request(request(query=query), dialect).query.viewer is None


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("007", 7), ("9223372036854775807", 2**63 - 1)])
def test_whole_numbers_are_read(text: str, number: int) -> None:
    assert read_number("size", text) == number


@given(text=TEXT)
def test_what_is_read_as_a_number_is_nothing_but_digits(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert read_number("size", text) == int(text)
        assert set(text) <= set("0123456789")


@pytest.mark.parametrize(
    "text",
    [
        *("2010-02-03 09:34:01", "2010-02-03T09:34:01", "2010-02-03T09:34:01Z", "2010-02-03T09:34:01.987654"),
        *("2010-02-03T10:34:01+01:00", "2010-02-03T10:34:01 01:00", "2010-02-03T04:34:01-0500", "20100203T093401"),
    ],
)
def test_every_usual_form_of_a_time_is_understood(text: str) -> None:
    assert read_time(text) == datetime(2010, 2, 3, 9, 34, 1, tzinfo=UTC)


@given(text=TEXT)
def test_any_other_text_is_no_time(text: str) -> None:
    with contextlib.suppress(InvalidQuery):
        assert read_time(text).tzinfo is UTC


def test_words_for_statuses() -> None:
    assert SEED.status_named("available") is V1.status_named("active") is ImageStatus.AVAILABLE
    assert SEED.status_named("active") is None
    assert all(
        dialect.status_named(dialect.status_word(status)) is status for dialect in (SEED, V1) for status in ImageStatus
    )


# ---- ranges

SPECS = st.one_of(
    st.tuples(st.integers(0, 300), st.integers(0, 300)).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    st.integers(0, 300).map(lambda start: f"{start}-"),
    st.integers(0, 300).map(lambda length: f"-{length}"),
)


@given(specs=st.lists(SPECS, min_size=1, max_size=10), size=st.integers(0, 250))
def test_ranges_lie_within_the_whole_and_never_sum_up_to_more(specs: list[str], size: int) -> None:
    ranges = wanted_ranges(f"bytes={','.join(specs)}", size)
    if ranges is None:
        return
    assert all(0 <= wanted.start < wanted.stop <= size for wanted in ranges)
    assert sum(len(wanted) for wanted in ranges) <= size


@given(header=st.text(st.characters(max_codepoint=255), max_size=60), size=st.integers(0, 1000))
def test_no_range_header_harms(header: str, size: int) -> None:
    for text in (header, f"bytes={header}"):
        ranges = wanted_ranges(text, size)
        assert ranges is None or all(0 <= wanted.start < wanted.stop <= size for wanted in ranges)


def test_the_number_of_ranges_is_bounded() -> None:
    def header(count: int) -> str:
        return "bytes=" + ",".join(f"{2 * number}-{2 * number}" for number in range(count))

    assert len(wanted_ranges(header(MOST_RANGES), 1000) or ()) == MOST_RANGES
    assert wanted_ranges(header(MOST_RANGES + 1), 1000) is None


@given(starts=st.lists(st.integers(0, 90), min_size=2, max_size=6))
def test_a_multipart_body_is_as_long_as_it_says(starts: list[int]) -> None:
    data = bytes(range(100))
    ranges = [ByteRange(start, start + 10) for start in starts]
    multipart = Multipart(ranges, size=100, content_type="application/octet-stream")
    body = b"".join(
        piece if isinstance(piece, bytes) else data[piece.start : piece.stop] for piece in multipart.pieces()
    )
    assert len(body) == multipart.length
    assert body.count(b"Content-Range: bytes ") == len(ranges)


# ---- conditions

TIME = datetime(2010, 2, 3, 9, 34, 1, tzinfo=UTC)


@given(
    name=st.sampled_from(["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"]),
    value=HEADER_BYTES,
    is_read=st.booleans(),
)
def test_no_condition_harms(name: str, value: bytes, *, is_read: bool) -> None:
    asked = request([(name.encode(), value)])
    assert failed_condition(asked, etag='"sha256:1"', modified=TIME, is_read=is_read) in {None, 304, 412}
    assert range_applies(asked, etag='"sha256:1"', modified=TIME) in {True, False}
