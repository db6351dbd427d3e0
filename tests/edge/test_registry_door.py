# SPDX-License-Identifier: Apache-2.0
"""The registry over HTTP, as any program that knows no class of ours sees it (docs/reference/registry.md).

Threading: servers run in threads of their own.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from glancefs.errors import InvalidRequest
from glancefs.registries.calls import CHANGES, every_call
from tests.support.registries import TOKEN, RegistryService
from tests.support.servers import Reply, ask

PAGE = Path(__file__).parents[2] / "docs/reference/registry.md"
KEY = {"Idempotency-Key": "0123456789abcdef"}

Ask = Callable[..., Reply]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RegistryService]:
    with RegistryService(tmp_path / "registry") as service:
        yield service


@pytest.fixture
def asked(service: RegistryService) -> Ask:
    """Ask with JSON and the token: `asked("POST", "/images", {...}, headers)`."""

    def asks(method: str, path: str, said: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        body = None if said is None else json.dumps(said).encode()
        return request(service, method, path, {"Authorization": f"Bearer {TOKEN}"} | dict(headers or {}), body)

    return asks


def request(
    service: RegistryService, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None
) -> Reply:
    connection = http.client.HTTPConnection(str(urlsplit(service.url).netloc), timeout=60)
    try:
        return ask(connection, method, path, headers, body)
    finally:
        connection.close()


def new(name: str = "debian", **said: Any) -> dict[str, Any]:
    return {"image": {"name": name, "type": "machine", "is_public": True} | said}


# ---- who may ask


def test_a_page_in_a_browser_changes_nothing(asked: Ask) -> None:
    page = {"Origin": "http://elsewhere.example", "Content-Type": "text/plain"}
    assert asked("POST", "/images", new(), page).status == 403
    assert asked("GET", "/images", headers=page).status == 403
    assert asked("GET", "/images").json["images"] == []


@pytest.mark.parametrize(
    "said", [None, "Bearer another", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"], ids=str
)
def test_without_its_token_the_registry_answers_nothing(service: RegistryService, said: str | None) -> None:
    headers = {} if said is None else {"Authorization": said}
    for method, path in (
        ("GET", "/images"),
        ("GET", "/images/1"),
        ("POST", "/registry/v1/revision"),
        ("GET", "/metrics"),
        ("POST", "/registry/v1/nothing"),
    ):
        reply = request(service, method, path, headers, b"{}" if method == "POST" else None)
        assert reply.status == 401
        assert reply.headers["www-authenticate"].startswith("Bearer ")
        assert TOKEN.encode() not in reply.body
    assert request(service, "GET", "/healthcheck", {}).status == 200


def test_the_scheme_of_the_token_has_no_case(service: RegistryService) -> None:
    assert request(service, "GET", "/images", {"Authorization": f"bearer {TOKEN}"}).status == 200


def test_a_registry_without_a_token_answers_whoever_reaches_it(tmp_path: Path) -> None:
    with RegistryService(tmp_path / "open", token=None) as service:
        assert request(service, "GET", "/images").json == {"images": []}


# ---- the paths of the seed


def test_an_image_is_added_shown_changed_and_deleted(asked: Ask) -> None:
    added = asked("POST", "/images", new(properties={"os": "linux"}))
    assert (added.status, added.headers["etag"]) == (201, '"1"')
    assert added.headers["location"].endswith("/images/1")
    assert added.image["status"] == "queued"
    assert added.image == asked("GET", "/images/1").image
    assert asked("GET", "/images/").json == {"images": [{"id": "1", "name": "debian", "type": "machine", "size": 0}]}
    assert asked("GET", "/images/detail").json == {"images": [added.image]}

    changed = asked("PUT", "/images/1", {"image": {"name": "trixie", "size": 5}}).image
    kept = {name: value for name, value in added.image.items() if name not in {"name", "size", "revision"}}
    assert changed | kept | {"updated_at": changed["updated_at"]} == changed
    assert (changed["name"], changed["size"], changed["revision"]) == ("trixie", 5, 2)

    deleted = asked("DELETE", "/images/1")
    assert (deleted.status, deleted.image["status"], deleted.image["revision"]) == (200, "deleted", 3)
    assert asked("GET", "/images/1").status == asked("DELETE", "/images/1").status == 404
    assert asked("PUT", "/images/1", {"image": {"name": "x"}}).status == 404
    assert asked("GET", "/images").json == {"images": []}


def test_an_image_with_a_location_has_its_data(asked: Ask) -> None:
    image = asked("POST", "/images", new(location="swift:key:with:colons", size=7)).image
    assert (image["status"], image["store"], image["location"]) == ("available", "swift", "swift:key:with:colons")


def test_lists_hold_what_is_public_and_page(asked: Ask) -> None:
    for number in range(1, 7):
        asked("POST", "/images", new(str(number), is_public=number % 2 == 0))

    def names(query: str = "") -> str:
        return "".join(image["name"] for image in asked("GET", f"/images{query}").json["images"])

    assert names() == "642"
    assert names("?is_public=none") == "654321"
    assert names("?is_public=false&limit=2") == "53"
    assert names("?is_public=none&limit=3&marker=4") == "321"
    assert names("?limit=0") == ""
    for query in ("?limit=x", "?limit=-1", "?marker=77", "?is_public=perhaps", "?color=red"):
        assert asked("GET", f"/images{query}").status == 400


def test_of_two_who_change_one_revision_one_succeeds(asked: Ask) -> None:
    image = asked("POST", "/images", new()).image
    assert asked("PUT", "/images/1", {"image": {"name": "a"}}, {"If-Match": '"1"'}).status == 200
    for late in (
        asked("PUT", "/images/1", {"image": {"name": "b"}}, {"If-Match": '"1"'}),
        asked("PUT", "/images/1", {"image": image | {"name": "b"}}),
        asked("DELETE", "/images/1", None, {"If-Match": '"1"'}),
    ):
        assert (late.status, late.json["type"]) == (409, "urn:glancefs:error:stale-image")
    assert asked("DELETE", "/images/1", None, {"If-Match": '"x"'}).status == 400
    assert asked("DELETE", "/images/1", None, {"If-Match": '"2"'}).status == 200


@pytest.mark.expect_log("The change came after the time in which it was wanted")
def test_a_change_with_a_key_is_made_once_and_not_when_it_is_too_late(asked: Ask) -> None:
    for _ in range(3):
        assert asked("POST", "/images", new(), KEY).image["id"] == "1"
    key = {"Idempotency-Key": "another-key-of-this-test"}
    answers = [asked("DELETE", "/images/1", None, key) for _ in range(2)]
    assert answers[0].image == answers[1].image
    assert asked("POST", "/registry/v1/revision", {}).json == {"answer": 2}
    late = {"Idempotency-Key": "a-third-key-of-this-test", "Glancefs-Until": "1000000000.5"}
    refused = asked("POST", "/images", new(), late)
    assert (refused.status, refused.json["type"]) == (503, "urn:glancefs:error:registry-unavailable")
    now = float(refused.headers["glancefs-time"])
    assert asked("POST", "/images", new(), late | {"Glancefs-Until": str(now + 600)}).image["id"] == "2"
    assert asked("POST", "/images", new(), late).image["id"] == "2"
    for key in (
        late | {"Glancefs-Until": "noon"},
        {"Idempotency-Key": "short"},
        {"Idempotency-Key": "with blanks in the key"},
    ):
        assert asked("POST", "/images", new(), key).status == 400


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b'"image"', b"null", b"\xff", b'{"image": 5}', b'{"image": {}}', b"[" * 100_000),
        *(b'{"image": {"name": "a", "type": "floppy"}}', b'{"image": {"name": 5, "type": "raw"}}'),
        *(b'{"image": {"name": "a", "type": "raw", "size": "5"}}', b'{"image": {"name": "a", "type": "raw", "x": 1}}'),
        *(b'{"image": {"name": "a", "type": "raw"}, "more": 1}', b'{"image": {"name": "a"}}'),
        *(b'{"image": {"name": "a", "type": "raw", "size": true}}', b'{"image": {"name": "\\ud800", "type": "raw"}}'),
        *(b'{"image": {"name": "a", "type": "raw", "created_at": "noon"}}',),
        *(b'{"image": {"name": "a", "type": "raw", "status": "deleted"}}',),
        *(b'{"image": {"name": "a", "type": "raw", "location": 5}}',),
        *(b'{"image": {"name": "a", "type": "raw", "properties": {"a": 5}}}',),
        *(b'{"image": {"name": "a", "type": "raw", "properties": []}}',),
    ],
    ids=lambda body: repr(body[:60]),
)
def test_a_body_that_makes_no_sense_is_refused(service: RegistryService, body: bytes) -> None:
    reply = request(service, "POST", "/images", {"Authorization": f"Bearer {TOKEN}"}, body)
    assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")
    assert service.registry.revision() == 0


def test_paths_and_methods_that_are_none_say_so(asked: Ask) -> None:
    for path in ("/images/1/members", "/registry/v1/nothing", "/registry/v1/folders/close", "/registry/v2/find", "/v1"):
        assert asked("GET", path).status == 404
    assert asked("POST", "/registry/v1/close", {}).status == 404
    for method, path in (("GET", "/registry/v1/find"), ("DELETE", "/images"), ("POST", "/images/1")):
        refused = asked(method, path)
        assert refused.status == 405
        assert method not in refused.headers["allow"].split(", ")
    assert asked("OPTIONS", "/images").headers["allow"] == "GET, HEAD, POST, OPTIONS"


# ---- the calls


def test_arguments_that_a_call_does_not_have_are_refused(asked: Ask) -> None:
    view = {"viewer": "ann", "sees_all": False}
    assert asked("POST", "/registry/v1/folders/at", {"name": "a", "view": view}).json == {
        "answer": {"image": None, "folder": None}
    }
    wrongs: list[Any] = [{"name": "a"}, {"name": "a", "view": view, "more": 1}, {"name": None, "view": view}, [], 5]
    for wrong in wrongs:
        assert asked("POST", "/registry/v1/folders/at", wrong).status == 400


def test_the_reference_names_every_call_with_its_arguments() -> None:
    page = PAGE.read_text()
    for name, call in every_call().items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        told = [argument for argument in row.split("|")[2].replace("`", "").replace(" ", "").split(",") if argument]
        # An argument that there is has another type; one that there is not would be told of first.
        said: dict[str, object] = dict.fromkeys(told, 1.5)
        if told:
            with pytest.raises(InvalidRequest, match="is expected"):
                call.arguments(said)
        else:
            assert call.arguments(said) == {}
    assert set(every_call()) >= CHANGES


# ---- pages


def test_the_pages_of_a_registry(asked: Ask) -> None:
    asked("POST", "/images", new())
    assert asked("GET", "/healthcheck").json == {"status": "ok", "checks": {"registry": "ok"}}
    assert [door["name"] for door in asked("GET", "/").json["doors"]] == ["registry"]
    metrics = asked("GET", "/metrics").body.decode()
    assert 'glancefs_images{status="queued",store="file"} 1.0' in metrics
    assert 'route="images",status="201"' in metrics


# ---- waiting for a change


def test_changes_are_waited_for_and_told_as_soon_as_there_are_any(service: RegistryService, asked: Ask) -> None:
    path, nothing = "/registry/v1/changes", {"images": [], "folders": [], "revision": 0}
    # One that may not be waited for, and one in whose time nothing comes.
    for query in ("", "?since=0", "?since=0&wait=0", "?since=0&wait=1"):
        assert asked("GET", path + query).json == {"answer": nothing}
    # Many more than there are threads.
    waiting = [http.client.HTTPConnection(str(urlsplit(service.url).netloc), timeout=60) for _ in range(150)]
    try:
        for connection in waiting:
            connection.request("GET", f"{path}?since=0&wait=60", headers={"Authorization": f"Bearer {TOKEN}"})
        added = asked("POST", "/images", new()).json["image"]
        for connection in waiting:
            told = json.loads(connection.getresponse().read())
            assert told == {"answer": nothing | {"images": [added], "revision": 1}}
    finally:
        for connection in waiting:
            connection.close()
    # What is there already is told at once.
    asked("POST", "/images", new("another"))
    told = asked("GET", f"{path}?since=0&wait=60&limit=1").json["answer"]
    assert (told["images"], told["revision"]) == ([added], 1)


@pytest.mark.parametrize("query", ["since=x", "wait=-1", "since=1.5", "limit=a", f"since={'9' * 40}"])
def test_what_is_waited_for_is_a_number(asked: Ask, query: str) -> None:
    refused = asked("GET", f"/registry/v1/changes?{query}")
    assert (refused.status, refused.json["type"]) == (400, "urn:glancefs:error:invalid-request")
    assert asked("GET", "/registry/v1/identity").status == 405
