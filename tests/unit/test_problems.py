# SPDX-License-Identifier: Apache-2.0
"""Every error of the tree as HTTP says it.

Threading: none.
"""

import json
import re
from pathlib import Path

import pytest

from gateway.problems import STATUSES, URN, method_not_allowed, problem_of, problem_response, status_of
from glancefs import errors
from glancefs.errors import GlancefsError, error_named, every_error

EXPECTED = {
    "glancefs-error": 500,
    "invalid-request": 400,
    "invalid-image": 400,
    "invalid-query": 400,
    "unsupported-store": 400,
    "size-mismatch": 400,
    "checksum-mismatch": 400,
    "upload-truncated": 400,
    "invalid-path": 400,
    "path-too-long": 400,
    "attributes-unsupported": 400,
    "upload-too-large": 413,
    "not-authenticated": 401,
    "forbidden": 403,
    "protected-image": 403,
    "not-found": 404,
    "image-not-found": 404,
    "path-not-found": 404,
    "attribute-not-found": 404,
    "lock-not-found": 404,
    "conflict": 409,
    "duplicate": 409,
    "stale-image": 409,
    "wrong-status": 409,
    "ahead-lost": 409,
    "immutable-image": 409,
    "path-taken": 409,
    "not-a-folder": 409,
    "is-a-folder": 409,
    "folder-not-empty": 409,
    "locked": 423,
    "headers-too-large": 431,
    "store-full": 507,
    "data-missing": 500,
    "unavailable": 503,
    "store-unavailable": 503,
    "registry-unavailable": 503,
    "too-many-uploads": 503,
    "config-error": 500,
    "schema-too-new": 500,
}


def of_the_product(error: type[GlancefsError]) -> bool:
    # What the registry tells itself apart is one error to everybody else.
    return error.__module__.startswith(("glancefs.", "gateway.")) and error_named(error.code) is error


def test_every_error_has_its_status() -> None:
    assert {error.code: status_of(error) for error in every_error() if of_the_product(error)} == EXPECTED


def test_every_branch_of_the_tree_is_in_the_table_itself() -> None:
    for branch in GlancefsError.__subclasses__():
        assert not of_the_product(branch) or branch in STATUSES, branch


@pytest.mark.parametrize("error", [error for error in every_error() if of_the_product(error)])
def test_every_problem_leads_back_to_its_class(error: type[GlancefsError]) -> None:
    response = problem_response(problem_of(error("A plain sentence."), challenge="Basic"), accept=None)
    said = json.loads(b"".join(response.body))
    assert error_named(said["type"].removeprefix(URN)) is error
    assert said["status"] == response.status == status_of(error)
    assert ("A plain sentence." in said["detail"]) == (response.status != 500)
    headers = dict(response.headers)
    assert ("Retry-After" in headers) == (response.status == 503)
    assert ("WWW-Authenticate" in headers) == (response.status == 401)


def test_an_error_without_words_still_says_something() -> None:
    assert problem_of(errors.NotFound()).detail == "Not Found"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "application/problem+json"),
        ("*/*", "application/problem+json"),
        ("application/*", "application/problem+json"),
        ("application/json, text/plain;q=0.5", "application/problem+json"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("text/html", "text/html; charset=utf-8"),
        ("text/html;q=0.2, text/plain;q=0.9", "text/plain; charset=utf-8"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
        ("image/png", "application/problem+json"),
    ],
)
def test_a_problem_takes_the_form_that_is_asked_for(accept: str | None, content_type: str) -> None:
    response = problem_response(method_not_allowed("BREW", ("GET",)), accept=accept)
    assert dict(response.headers)["Content-Type"] == content_type
    assert dict(response.headers)["Allow"] == "GET"


def test_the_reference_names_every_error_with_its_status() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "errors.md").read_text()
    rows = re.findall(r"^\| (\w+) \| `([a-z-]+)` \| (\d+)", page, re.MULTILINE)
    assert {(name, code, int(status)) for name, code, status in rows} == {
        (error.__name__, error.code, status_of(error)) for error in every_error() if of_the_product(error)
    }
