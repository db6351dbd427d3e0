# SPDX-License-Identifier: Apache-2.0
"""The codec of metadata in headers: nothing is lost, plain things stay plain.

Threading: none.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glancefs.errors import InvalidImage
from glancefs.headers import (
    decode_header_value,
    encode_header_value,
    meta_from_headers,
    meta_to_headers,
    read_boolean,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT)
def test_every_text_comes_back_exactly(text: str) -> None:
    encoded = encode_header_value(text)
    assert encoded.isascii()
    assert encoded == encoded.strip()
    assert encoded.isprintable()
    assert decode_header_value(encoded) == text


@given(st.text(st.characters(max_codepoint=0xFF)))
def test_every_value_can_be_decoded(value: str) -> None:
    assert isinstance(decode_header_value(value), str)


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("Ubuntu 10.04 Plain 5GB", "Ubuntu 10.04 Plain 5GB"),
        ("100% pure", "100%25 pure"),
        ("é", "%C3%A9"),
        ("a\r\nX-Evil: 1", "a%0D%0AX-Evil: 1"),
        ("\0", "%00"),
        (" both ", "%20both%20"),
        ("", ""),
        ("tab\there", "tab%09here"),
    ],
)
def test_values_are_encoded_as_the_checklist_says(text: str, encoded: str) -> None:
    assert encode_header_value(text) == encoded


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("%zz", "%zz"),
        ("100%", "100%"),
        ("%FF", "%FF"),
        ("a%ffb%C3%A9", "a%ffbé"),
        ("%C3%28", "%C3("),
        ("%e2%82", "%e2%82"),
        ("caf\xc3\xa9", "café"),
        ("caf\xe9", "caf\xe9"),
    ],
)
def test_what_is_no_encoding_stays_as_it_is(value: str, text: str) -> None:
    assert decode_header_value(value) == text


def test_text_with_lone_surrogates_is_refused() -> None:
    with pytest.raises(InvalidImage):
        encode_header_value("a\ud800")


def test_metadata_come_back_with_their_types() -> None:
    meta = {
        "name": "größer",
        "size": 7,
        "is_public": True,
        "protected": False,
        "deleted_at": "",
        "properties": {"distro": "Ubuntu 10.04 LTS", "empty": ""},
    }
    assert meta_from_headers(meta_to_headers(meta)) == meta


def test_unset_fields_have_no_header() -> None:
    assert list(meta_to_headers({"name": "a", "id": None})) == [("x-image-meta-name", "a")]


@pytest.mark.parametrize("key", ["", "a b", "a\r\nb", "é", "a:b"])
def test_names_that_no_header_has_are_refused(key: str) -> None:
    with pytest.raises(InvalidImage):
        list(meta_to_headers({"properties": {key: "x"}}))


@pytest.mark.parametrize("word", ["on", "1", "true", "TRUE", "Yes", "t", "Y"])
def test_true_words(word: str) -> None:
    assert read_boolean(word, field="is_public") is True


@pytest.mark.parametrize("word", ["off", "0", "False", "no", "F", "n", "", "None"])
def test_false_words(word: str) -> None:
    assert read_boolean(word, field="is_public") is False


def test_other_words_are_refused() -> None:
    with pytest.raises(InvalidImage, match="bogus"):
        read_boolean("bogus", field="is_public")
