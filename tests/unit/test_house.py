# SPDX-License-Identifier: Apache-2.0
"""The tree keeps the rules of the house, and each rule can tell when it does not.

Threading: none.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import pytest

from tests.support import house
from tests.support.capabilities import ROOT, git
from tests.support.house import SPDX, SourceFile


def files_of_the_tree() -> Iterator[SourceFile]:
    said = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert said
    for name in filter(None, said.split("\0")):
        try:
            yield SourceFile(path=PurePosixPath(name), text=(ROOT / name).read_text(), root=ROOT)
        except (FileNotFoundError, UnicodeDecodeError):
            # Deleted and not yet committed, or not a text.
            continue


@pytest.fixture(scope="module")
def faults() -> Mapping[str, list[str]]:
    """What the rules find, by the rule's name; each file is looked at by all rules, one after the other."""
    found: dict[str, list[str]] = {rule.__name__: [] for rule in house.RULES}
    for file in files_of_the_tree():
        for rule in house.RULES:
            found[rule.__name__] += [f"{file.path}: {fault}" for fault in rule(file)]
    return found


@pytest.mark.needs("git")
@pytest.mark.parametrize("rule", house.RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Callable[[SourceFile], Iterator[str]], faults: Mapping[str, list[str]]) -> None:
    assert faults[rule.__name__] == []


LONG_FUNCTION = "def f() -> None:\n" + "    print()\n" * house.MAX_FUNCTION_LINES
MODULE = f'{SPDX}\n"""Duty.\n\nThreading: none.\n"""\n'
HASHED = "a==1 \\\n    --hash=sha256:00\n"
IGNORES = "[tool.ruff.lint]\nignore = [\n{}\n]\n[tool.ruff.lint.pydocstyle]\n"

BROKEN = [
    (house.top_level_is_the_agreed_one, "scripts/a.py", ""),
    (house.file_is_small_enough, "glancefs/a.py", "\n" * (house.MAX_FILE_LINES + 1)),
    (house.file_is_small_enough, "docs/a.md", "x" * (house.MAX_FILE_BYTES + 1)),
    (house.functions_are_small_enough, "glancefs/a.py", LONG_FUNCTION),
    (house.functions_are_small_enough, "tests/test_a.py", f"async {LONG_FUNCTION}"),
    (house.module_states_its_duty_and_threading, "glancefs/a.py", "x = 1\n"),
    (house.module_states_its_duty_and_threading, "gateway/a.py", '"""Duty."""\n' + "x = 1\n" * 20),
    (house.name_says_what_it_answers_for, "glancefs/utils.py", ""),
    (house.licence_is_named_first, "glancefs/a.py", '"""Duty."""\n'),
    (house.licence_is_named_first, "glancefs/a.py", ""),
    (house.lock_is_hashed_and_names_no_host, "requirements.lock", HASHED + "b==1\n"),
    (house.lock_is_hashed_and_names_no_host, "requirements.lock", HASHED + "b>=1 \\\n    --hash=sha256:00\n"),
    (house.lock_is_hashed_and_names_no_host, "requirements.lock", "--index-url https://host.example/\n" + HASHED),
    (house.exemptions_carry_a_reason, "glancefs/a.py", "x = 1  # noqa: S101\n"),
    (house.exemptions_carry_a_reason, "glancefs/a.py", "x = 1  # type: ignore[attr-defined]\n"),
    (house.exemptions_carry_a_reason, "pyproject.toml", IGNORES.format('    "D105",')),
    (house.exemptions_carry_a_reason, "pyproject.toml", IGNORES.format('    "D105", # bother')),
    (house.tests_assert_something, "tests/test_a.py", "def test_a() -> None:\n    print()\n"),
    (house.no_exception_is_swallowed_whole, "glancefs/a.py", "try:\n    f()\nexcept Exception:\n    pass\n"),
    (house.no_exception_is_swallowed_whole, "glancefs/a.py", "try:\n    f()\nexcept:\n    pass\n"),
    (house.speaks_of_no_machine, "docs/a.md", f"see {os.sep}root/a/b"),
    (house.speaks_of_no_machine, "docs/a.md", "see /srv/clones/glancefs/a"),
    (house.environment_is_read_in_config_alone, "glancefs/images.py", "import os\nx = os.environ['X']\n"),
    (house.environment_is_read_in_config_alone, "gateway/a.py", "import os\nx = os.getenv('X')\n"),
    (house.links_lead_somewhere, "docs/a.md", "[gone](gone.md)"),
]

SOUND = [
    (house.top_level_is_the_agreed_one, "glancefs/a.py", ""),
    (house.functions_are_small_enough, "glancefs/a.py", LONG_FUNCTION.removesuffix("    print()\n")),
    (house.module_states_its_duty_and_threading, "glancefs/a.py", MODULE + "x = 1\n" * 20),
    (house.licence_is_named_first, "glancefs/a.py", MODULE),
    (house.lock_is_hashed_and_names_no_host, "requirements.lock", HASHED + HASHED),
    (house.exemptions_carry_a_reason, "glancefs/a.py", "x = 1  # noqa: S101 - the parser promised it\n"),
    (house.exemptions_carry_a_reason, "glancefs/a.py", "# The parser promised it.\nx = 1  # noqa: S101\n"),
    (house.exemptions_carry_a_reason, "pyproject.toml", IGNORES.format('    "D105", # the contract is Python\'s')),
    (house.tests_assert_something, "tests/test_a.py", "def test_a() -> None:\n    assert f() == 1\n"),
    (house.environment_is_read_in_config_alone, "glancefs/config.py", "import os\nx = os.environ['X']\n"),
    (house.links_lead_somewhere, "docs/a.md", "[a page](b.md), [a site](https://site.example/), [below](#below)"),
]


def sample(path: str, text: str, root: Path) -> SourceFile:
    return SourceFile(path=PurePosixPath(path), text=text, root=root)


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_a_rule_tells_a_broken_file(rule: Callable[[SourceFile], Iterator[str]], path: str, text: str) -> None:
    assert list(rule(sample(path, text, Path("/srv/clones/glancefs"))))


@pytest.mark.parametrize(("rule", "path", "text"), SOUND, ids=lambda value: getattr(value, "__name__", None))
def test_a_rule_lets_a_sound_file_be(
    rule: Callable[[SourceFile], Iterator[str]], path: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "b.md").touch()
    assert list(rule(sample(path, text, tmp_path))) == []


def test_every_rule_was_seen_to_fail() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(house.RULES)
