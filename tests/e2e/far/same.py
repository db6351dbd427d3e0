# SPDX-License-Identifier: Apache-2.0
"""The tests of the mount, to be run with a server between the mount and its images.

Answers for handing the tests of a module on to another one, together with the fixtures that they ask for.

Threading: used while pytest collects.
"""

from __future__ import annotations

from collections.abc import Collection
from types import FunctionType, ModuleType


def taken_from(
    module: ModuleType, *, only: Collection[str] | None = None, without: Collection[str] = ()
) -> dict[str, object]:
    """Give the tests of a module that are wanted, by name, and its fixtures.

    Raises KeyError for the name of a test that is none.
    """
    tests = {name: value for name, value in vars(module).items() if name.startswith("test_") and callable(value)}
    for name in (*without, *(only or ())):
        tests[name]
    # In the module's own order, which is the same in every process that collects.
    chosen = {name: test for name, test in tests.items() if (only is None or name in only) and name not in without}
    fixtures = {
        name: value
        for name, value in vars(module).items()
        if not isinstance(value, FunctionType) and "fixture" in type(value).__name__.lower()
    }
    return {**fixtures, **chosen}
