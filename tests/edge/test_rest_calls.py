# SPDX-License-Identifier: Apache-2.0
"""The calls of mounts, as any program may make them: what is not well said is refused.

Threading: none.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.use_cases import Far

ANN = {"Authorization": "Basic YW5uOnBhc3N3b3JkIG9mIGFubg=="}
JSON = {"Content-Type": "application/json"}
DATA = {"Content-Type": "application/octet-stream"}
NEW = {"name": "a", "type": "raw"}
KEY = {"Idempotency-Key": "a-key-of-sixteen-or-more"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    """One server for all."""
    place = Far(tmp_path_factory.mktemp("calls") / "data")
    yield place
    place.close()


def ask(
    place: Far, name: str, body: object, headers: dict[str, str] | None = None, *, method: str = "POST"
) -> tuple[int, Any]:
    """Make a call as ann."""
    parts = urlsplit(place.server.url)
    assert parts.hostname is not None
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    try:
        connection.request(method, f"/tree/v1/{name}", data, {**ANN, **JSON, **(headers or {})})
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("images/get", b"no JSON"),
        ("images/get", b"[" * 100_000),
        ("images/get", {}),
        ("images/get", {"image_id": 5}),
        ("images/get", {"image_id": "1", "context": {"user": "root", "is_admin": True}}),
        ("images/get", {"image_id": "1", "lock_tokens": "all"}),
        ("images/create", {"new": {"name": "a"}}),
        ("images/create", {"new": {**NEW, "location": "file:x"}}),
        ("images/create", {"new": {**NEW, "name": "x" * 2000}}),
        ("images/find", {"query": {"limit": 1001}}),
        ("folders/images_in", {"path": "", "limit": 1_000_000}),
        ("folders/folders_in", {"path": "", "limit": -1}),
        ("folders/images_in", {"path": "", "after": "no marker"}),
        ("folders/first_of_their_names", {"image_ids": [str(number) for number in range(1001)]}),
    ],
)
def test_what_is_not_well_said_is_refused(place: Far, name: str, body: object) -> None:
    status, said = ask(place, name, body)
    assert status == 400, said
    assert said["type"].startswith("urn:glancefs:error:invalid-")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_page_in_a_browser_could_send_unasked_is_refused(place: Far, kind: str) -> None:
    before = place.core.registry.revision()
    assert ask(place, "folders/make", {"path": "from a page"}, {"Content-Type": kind})[0] == 400
    body = json.dumps({"new": NEW}).encode() + b"\ndata"
    assert ask(place, "images/add", body, {"Content-Type": kind})[0] == 400
    assert place.core.registry.revision() == before


def test_other_methods_and_names_lead_nowhere(place: Far) -> None:
    assert ask(place, "images/get", b"", method="GET")[0] == 405
    assert ask(place, "images/get", b"", method="OPTIONS")[0] == 204
    assert ask(place, "images/open_image", {})[0] == 404
    assert ask(place, "images/_changeable", {"context": {}, "image_id": "1"})[0] == 404
    assert ask(place, "", {})[0] == 404


@pytest.mark.parametrize("body", [b"", b"no newline", b"[]\n", b"{}\ndata"])
def test_data_without_arguments_are_refused(place: Far, body: bytes) -> None:
    assert ask(place, "images/add", body, DATA)[0] == 400


def test_an_upload_is_a_line_of_arguments_and_then_the_data(place: Far) -> None:
    body = json.dumps({"new": {**NEW, "properties": {"long": "x" * 60_000}}}).encode() + b"\nsome\ndata\n"
    status, said = ask(place, "images/add", body, DATA)
    assert status == 200
    image = said["answer"]
    assert (image["size"], image["owner"], image["location"]) == (10, "ann", None)
    with place.core.images.open(place.caller("ann").context, image["id"]) as reader:
        assert reader.read_at(0, 100) == b"some\ndata\n"


@pytest.mark.expect_log("came after the time in which it was wanted")
def test_a_key_makes_a_change_once_for_each_user(place: Far) -> None:
    first = ask(place, "images/create", {"new": NEW}, KEY)
    again = ask(place, "images/create", {"new": {"name": "other", "type": "raw"}}, KEY)
    assert first == again
    others = ask(place, "images/create", {"new": NEW}, {**KEY, "Authorization": "Basic Ym9iOnBhc3N3b3JkIG9mIGJvYg=="})
    assert (others[0], others[1]["answer"]["owner"]) == (200, "bob")
    assert ask(place, "images/create", {"new": NEW}, {"Idempotency-Key": "short"})[0] == 400
    late = {"Idempotency-Key": "another-key-that-is-late", "Glancefs-Until": "1000"}
    assert ask(place, "images/create", {"new": NEW}, late)[0] == 503


def test_what_changes_something_is_for_users(place: Far) -> None:
    status, _ = ask(place, "folders/make", {"path": "x"}, {"Authorization": ""})
    assert status == 401
