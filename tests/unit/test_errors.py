# SPDX-License-Identifier: Apache-2.0
"""The tree of errors: its drawing, its codes.

Threading: none.
"""

from __future__ import annotations

import re

from glancefs import errors


def test_the_drawing_shows_every_class_below_its_parent() -> None:
    drawn: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ([│ ]*)(?:[├└]── )?([A-Z][A-Za-z]+)(?:\s{2,}.*)?$", line):
            depth = (line.index(match[2]) - 4) // 4
            path[depth:] = [match[2]]
            drawn[match[2]] = path[depth - 1] if depth else None
    classes = {
        error.__name__: None if error is errors.GlancefsError else error.__mro__[1].__name__
        for error in errors.every_error()
        if error.__module__ == errors.__name__
    }
    assert drawn == classes


def test_a_code_is_the_name_in_kebab_case_and_leads_back_to_its_class() -> None:
    assert errors.SizeMismatch.code == "size-mismatch"
    for error in errors.every_error():
        known = errors.error_named(error.code)
        # What a registry tells itself apart goes by the name of a class above it.
        assert known is not None
        assert issubclass(error, known)


def test_a_code_that_this_version_does_not_know_leads_nowhere() -> None:
    assert errors.error_named("moon-phase") is None
