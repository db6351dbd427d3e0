# SPDX-License-Identifier: Apache-2.0
"""Other names for images that can't have the path of their own.

Threading: none.
"""

from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from glancefs.namesakes import document_name, has_digest, id_of_document, namesake_paths, said_digest, said_id
from glancefs.paths import MAX_COMPONENT, component_from_bytes, path_of, split

IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", fullmatch=True)
LONG_IDS = st.builds(
    lambda letter, count, end: (letter * count + end)[:255],
    st.sampled_from("ab"),
    st.integers(230, 255),
    st.sampled_from(["", ".json", ".json.json", "x"]),
)
NAMES = st.one_of(
    st.text(max_size=20),
    st.builds(lambda text, count: text * count, st.text(min_size=1, max_size=3), st.integers(60, 260)),
)


@settings(max_examples=50)
@given(NAMES, st.one_of(IDS, LONG_IDS))
def test_every_other_name_is_a_file_name_and_says_whose_it_is(name: str, image_id: str) -> None:
    paths = list(islice(namesake_paths(path_of(name), image_id), 500))
    assert len(paths) == len(set(paths)) < 500
    for path in paths:
        component = split(path)[1]
        assert component_from_bytes(component.encode()) == component
        said = said_digest(component)
        assert said_id(component) == image_id or (said is not None and has_digest(image_id, said[1]))
    if len(image_id) < MAX_COMPONENT:
        assert paths[0].endswith(f"~{image_id}")


def test_a_short_identifier_is_written_out() -> None:
    assert list(islice(namesake_paths("a/b", "5"), 2)) == ["a/b~5", "a/b~5~5"]


def test_an_identifier_that_leaves_no_room_has_its_digest_written() -> None:
    first = next(namesake_paths("a/b", "x" * 255))
    digest = first.removeprefix("a/b~~")
    assert said_digest(split(first)[1]) == ("b", digest)
    assert has_digest("x" * 255, digest)
    assert not has_digest("x" * 254, digest)


@given(st.one_of(IDS, LONG_IDS))
def test_every_identifier_has_a_document_of_its_own(image_id: str) -> None:
    name = document_name(image_id)
    assert len(name) <= MAX_COMPONENT
    assert id_of_document(name) == image_id


def test_documents_of_the_longest_identifiers_differ_from_all_others() -> None:
    ids = ["x" * 250, f"{'x' * 250}.json", "x" * 255, f"{'x' * 245}.json", f"{'x' * 245}.jsonx", "x"]
    assert len({document_name(image_id) for image_id in ids}) == len(ids)
    assert id_of_document("x") is None
    assert id_of_document("x~json") is None
