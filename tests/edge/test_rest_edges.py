# SPDX-License-Identifier: Apache-2.0
"""Around the images API: routes, methods, errors, the root, health and metrics (seed checklist, statements 2 and 33).

Threading: single-threaded; over HTTP the server answers in threads of its own.
"""

import logging
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

import glancefs
from gateway.wsgi import Request, Response
from glancefs.errors import DataMissing, StoreUnavailable
from tests.support.rest import KERNEL, PUBLIC, MakeRest, OverWsgi, Rest, wsgi_environ

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"

ALLOWED = {
    "/images": {"GET", "HEAD", "POST", "OPTIONS"},
    "/images/": {"GET", "HEAD", "POST", "OPTIONS"},
    "/images/detail": {"GET", "HEAD", "OPTIONS"},
    "/images/detail/": {"GET", "HEAD", "OPTIONS"},
    "/images/1": {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"},
    "/v1/images": {"GET", "HEAD", "POST", "OPTIONS"},
    "/v1/images/1": {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"},
    "/v1/images/1/members": {"GET", "HEAD", "OPTIONS"},
    "/versions": {"GET", "HEAD", "OPTIONS"},
    "/": {"GET", "HEAD", "OPTIONS"},
    "/healthcheck": {"GET", "HEAD", "OPTIONS"},
    "/metrics": {"GET", "HEAD", "OPTIONS"},
}


@pytest.mark.parametrize("path", ALLOWED)
def test_a_method_that_a_path_does_not_have_is_405_with_allow(make_rest: MakeRest, path: str) -> None:
    rest = make_rest()
    for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"} - ALLOWED[path]:
        reply = rest(method, path, {"Accept": "application/json"})
        assert (reply.status, reply.code) == (405, "method-not-allowed"), method
        assert set(reply.headers["allow"].split(", ")) == ALLOWED[path]


@pytest.mark.parametrize("path", ALLOWED)
def test_options_answers_what_can_be_done(rest: Rest, path: str) -> None:
    reply = rest("OPTIONS", path)
    assert (reply.status, reply.body) == (204, b"")
    assert set(reply.headers["allow"].split(", ")) == ALLOWED[path]


def test_options_of_the_whole_server_answers(rest: Rest) -> None:
    assert rest("OPTIONS", "*").status == 204


@pytest.mark.parametrize(
    "path",
    [
        *("/nothing", "/image", "/imagesx", "/images/1/2", "/images//1", "//images", "/images/detail/x", "/v2/images"),
        *(
            "/v1/nothing",
            "/v1//images",
            "/v1/detail",
            "/v1/versions",
            "/versions/1",
            "/metrics/x",
            "/v11",
            "/../images",
        ),
        "/shared-images/x",
    ],
)
def test_an_unknown_path_is_404(rest: Rest, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        reply = rest(method, path, {"Accept": "application/json"})
        assert (reply.status, reply.code) == (404, "not-found")
    assert rest("HEAD", path).body == b""


# ---- errors


def test_a_problem_has_its_type_title_status_and_detail(rest: Rest) -> None:
    for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}, {"Accept": "application/problem+json"}):
        reply = rest("GET", "/images/7", accept)
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json == {
            "type": "urn:glancefs:error:image-not-found",
            "title": "Not Found",
            "status": 404,
            "detail": "There is no image '7'.",
        }


@pytest.mark.parametrize("accept", ["text/plain", "text/*", "text/plain, image/*;q=0.1"])
def test_a_problem_is_one_sentence_to_those_who_take_text(rest: Rest, accept: str) -> None:
    reply = rest("GET", "/images/7", {"Accept": accept})
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.body == b"There is no image '7'.\n"


def test_a_problem_is_a_page_to_a_browser_and_nothing_in_it_is_markup(rest: Rest) -> None:
    said = KERNEL | {"x-image-meta-type": "<script>alert(1)</script>", "Accept": BROWSER}
    reply = rest("POST", "/images/", said, b"x")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert b"&lt;script&gt;" in reply.body
    assert b"<script" not in reply.body


@pytest.mark.parametrize("accept", ["image/png", ";;;", "q=", "a/b;q=x", ",", "*/*;q=0", "\xff"])
def test_an_accept_header_that_asks_for_nothing_we_have_harms_nobody(rest: Rest, accept: str) -> None:
    assert rest("GET", "/images/7", {"Accept": accept}).status == 404


@pytest.mark.expect_log("ERROR gateway.application: GET '/images/1': DataMissing: .* secret")
def test_damage_is_told_to_the_operator_and_not_to_the_caller(
    make_rest: MakeRest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rest = make_rest()
    rest.add(PUBLIC)

    def lost(*_: object) -> None:
        message = "The data lie in a secret place."
        raise DataMissing(message)

    monkeypatch.setattr(rest.images, "open_image", lost)
    reply = rest("GET", "/images/1")
    assert (reply.status, reply.code) == (500, "data-missing")
    assert "secret" not in reply.body.decode()
    assert [record.exc_info for record in caplog.records if record.levelno >= logging.WARNING] == [None]


@pytest.mark.expect_log("WARNING gateway.application: GET '/images/1': StoreUnavailable")
def test_a_store_that_does_not_answer_is_503_with_retry_after(
    make_rest: MakeRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = make_rest()
    rest.add(PUBLIC)

    def gone(*_: object) -> None:
        message = "The store does not answer."
        raise StoreUnavailable(message)

    monkeypatch.setattr(rest.images, "open_image", gone)
    reply = rest("GET", "/images/1")
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")


@pytest.mark.expect_log("(?s)ERROR gateway.application: GET '/images/1' failed\nTraceback.*secret")
def test_an_unexpected_exception_is_logged_once_and_tells_the_caller_nothing(
    make_rest: MakeRest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rest = make_rest()

    def broken(*_: object) -> None:
        message = "a secret bug"
        raise RuntimeError(message)

    monkeypatch.setattr(rest.images, "get", broken)
    reply = rest("GET", "/images/1")
    assert reply.status == 500
    assert "secret" not in reply.body.decode()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_nothing_is_ever_taken_for_another_type_of_content(rest: Rest) -> None:
    rest.add(PUBLIC)
    for path in ("/", "/images/", "/images/1", "/images/7", "/nothing", "/healthcheck"):
        assert rest("GET", path).headers["x-content-type-options"] == "nosniff"


# ---- the root


def test_the_root_says_what_is_here(rest: Rest) -> None:
    for accept in ({}, {"Accept": "application/json"}):
        reply = rest("GET", "/", accept, user=None)
        assert reply.headers["content-type"] == "application/json"
        said = reply.json
        assert (said["name"], said["version"]) == ("glancefs", glancefs.__version__)
        assert [door["url"] for door in said["doors"]] == [
            "http://images.example.org/images/",
            "http://images.example.org/v1/",
        ]
        for door in said["doors"]:
            assert rest("GET", door["url"].removeprefix("http://images.example.org")).status == 200


class Links(HTMLParser):
    """Collects where a page leads, and whether it holds a script."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str | None] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name == "href"]


def test_the_root_is_a_page_to_a_browser(make_rest: MakeRest) -> None:
    reply = make_rest(public_url="https://images.example.com")("GET", "/", {"Accept": BROWSER}, user=None)
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    page = Links()
    page.feed(reply.body.decode())
    assert page.links == ["https://images.example.com/images/", "https://images.example.com/v1/"]
    assert "script" not in page.tags
    assert glancefs.__version__ in reply.body.decode()


def test_a_mounted_door_gets_what_is_below_its_prefix_and_who_asks(make_rest: MakeRest) -> None:
    seen: list[dict[str, Any]] = []

    def door(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        seen.append(environ)
        start_response("200 OK", [("Content-Length", "4")])
        return [b"door"]

    rest = make_rest(mounted={"/dav": (door, "Images as files.")})
    assert rest("GET", "/dav/a/b").body == b"door"
    assert (seen[0]["SCRIPT_NAME"], seen[0]["PATH_INFO"]) == ("/dav", "/a/b")
    assert seen[0]["glancefs.context"].user == "alice"
    assert rest("GET", "/dav").body == b"door"
    assert rest("GET", "/davx").status == 404
    assert rest("GET", "/dav/a", {"Authorization": "Basic !"}).status == 401
    assert rest("GET", "/").json["doors"][-1] == {
        "name": "dav",
        "url": "http://images.example.org/dav/",
        "about": "Images as files.",
    }


# ---- health


def test_a_server_that_is_well_says_so_to_everybody(rest: Rest) -> None:
    reply = rest("GET", "/healthcheck", {"Authorization": "nonsense"}, user=None)
    assert reply.status == 200
    assert reply.json == {"status": "ok", "checks": {"registry": "ok", "store file": "ok"}}


@pytest.mark.expect_log("health of registry")
@pytest.mark.expect_log("health of store file: has no room left")
def test_health_tells_what_is_wrong(make_rest: MakeRest, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = make_rest(capacity=1 << 20)
    rest.registry.close()
    reply = rest("GET", "/healthcheck")
    assert reply.status == 503
    assert reply.json == {
        "status": "unwell",
        "checks": {"registry": "does not answer", "store file": "has no room left"},
    }


# ---- metrics


def test_metrics_are_for_admins(rest: Rest) -> None:
    assert rest("GET", "/metrics", user=None).status == 401
    assert rest("GET", "/metrics", user="alice").status == 403
    assert rest("GET", "/metrics", user="root").status == 200


def test_metrics_count_requests_bytes_and_images(make_rest: MakeRest) -> None:
    rest = make_rest(over="http")
    rest.add(PUBLIC, b"x" * 1000)
    rest("GET", "/images/1")
    rest("GET", "/images/2")
    rest("GET", "/nothing")
    page = rest("GET", "/metrics", user="root").body.decode()

    def value(pattern: str) -> float:
        found = re.search(f"^{pattern} (.*)$", page, re.MULTILINE)
        assert found is not None, page
        return float(found[1])

    def labels(route: str, method: str, status: int) -> str:
        return f'{{method="{method}",route="{route}",status="{status}"}}'

    assert value("glancefs_request_duration_seconds_count" + labels("images", "POST", 201)) == 1
    assert value("glancefs_request_duration_seconds_count" + labels("image", "GET", 200)) == 1
    assert value("glancefs_request_duration_seconds_count" + labels("image", "GET", 404)) == 1
    assert value("glancefs_request_duration_seconds_count" + labels("other", "GET", 404)) == 1
    assert value("glancefs_request_bytes_total" + labels("images", "POST", 201)) == 1000
    assert value("glancefs_response_bytes_total" + labels("image", "GET", 200)) > 1000
    assert value('glancefs_images{status="available",store="file"}') == 1
    assert value('glancefs_image_bytes{status="available",store="file"}') == 1000
    assert value("glancefs_uploads_under_way") == 0
    assert value("glancefs_registry_up") == 1
    assert value('glancefs_store_up{store="file"}') == 1


def test_an_upload_under_way_is_counted_until_it_ends(make_rest: MakeRest) -> None:
    rest = make_rest()
    seen: list[float] = []

    class Watched:
        """A body that looks at the metrics when it is read."""

        def readinto(self, _: memoryview) -> int:
            seen.append(uploads(rest))
            return 0

    assert isinstance(rest.send, OverWsgi)
    environ = wsgi_environ("POST", "/images/", [*KERNEL.items(), ("Host", "x"), ("Authorization", ALICE)], [])
    environ["wsgi.input"] = Watched()
    assert list(rest.send.application(environ, lambda *_: lambda _: None))
    assert seen == [1]
    assert uploads(rest) == 0


ALICE = "Basic YWxpY2U6YWxpY2U="


def uploads(rest: Rest) -> float:
    """Give how many uploads the metrics say are under way."""
    return next(
        sample.value for family in rest.metrics.families() for sample in family.samples if "uploads" in sample.name
    )


def test_a_body_that_is_not_sent_is_closed() -> None:
    closed: list[bool] = []

    class Body:
        """Remembers that it was closed."""

        def __iter__(self) -> Any:
            raise AssertionError

        def close(self) -> None:
            closed.append(True)

    response = Response(status=200, headers=[], body=Body())
    response.close()
    assert closed == [True]
    assert response.body == ()


def test_headers_are_read_from_wsgi_where_the_server_does_not_tell_them() -> None:
    request = Request({"REQUEST_METHOD": "GET", "HTTP_X_IMAGE_META_IS_PUBLIC": "on", "CONTENT_TYPE": "a/b"})
    assert list(request.sent_headers()) == [("x-image-meta-is-public", "on")]
