# SPDX-License-Identifier: Apache-2.0
"""The rules of the house that no other tool checks, each as a function from a file to what is wrong with it.

Answers for layout, sizes, docstrings, locks, reasons beside exemptions and words that belong to one machine.
Does not check style, types or imports: ruff, mypy and import-linter do.

Threading: pure functions.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

TOP_LEVEL = frozenset(
    [
        *("glancefs", "gateway", "mount_helpers", "tests", "docs", ".ci"),
        *("README.md", "CHANGELOG.md", "LICENSE", "Makefile", "pyproject.toml"),
        *(
            "requirements.lock",
            "requirements-test.lock",
            "requirements-build.lock",
            "requirements-keystone.lock",
            "requirements-swift.lock",
        ),
        *(".gitignore", ".gitattributes", ".editorconfig", ".pre-commit-config.yaml"),
    ]
)
CODE = frozenset({"glancefs", "gateway", "mount_helpers"})
SPDX = "# SPDX-License-Identifier: Apache-2.0"
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 50
MAX_FILE_BYTES = 1_000_000
# Below this a module has no room for a duty of its own.
SMALL_MODULE_LINES = 20

VAGUE_NAME = re.compile(r"^(utils?|helpers?|common|misc|manager)$")
ASSERTS = re.compile(r"assert|raises|warns|check|expect|verify|must|run_state_machine")
HOME_FOLDER = re.compile(r"(?<![\w.~}-])/(root|home/\w+|Users/\w+)/")
EXEMPTION = re.compile(r"#\s*(noqa|type:\s*ignore|pragma:|fmt:\s*(off|skip)|ruff:\s*noqa)(?P<rest>.*)$")
REASON = re.compile(r"[A-Za-z]{2,}\W+[A-Za-z]{2,}")
RULE_CODE = re.compile(r'^\s*"[A-Z]+[0-9]*"')
MARKDOWN_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file of the tree: where it is, from the top, and what it says."""

    path: PurePosixPath
    text: str
    root: Path = Path()

    @property
    def is_python(self) -> bool:
        """Whether it is a Python module."""
        return self.path.suffix == ".py"

    @property
    def lines(self) -> list[str]:
        """Its lines."""
        return self.text.splitlines()


Rule = Callable[[SourceFile], Iterator[str]]


def top_level_is_the_agreed_one(file: SourceFile) -> Iterator[str]:
    """The top level holds what the layout names."""
    if file.path.parts[0] not in TOP_LEVEL:
        yield f"{file.path.parts[0]} is not part of the layout"


def file_is_small_enough(file: SourceFile) -> Iterator[str]:
    """A module fits a reader's head, and nothing big is kept in the tree."""
    if file.is_python and len(file.lines) > MAX_FILE_LINES:
        yield f"{len(file.lines)} lines, more than {MAX_FILE_LINES}"
    if len(file.text.encode()) > MAX_FILE_BYTES:
        yield f"more than {MAX_FILE_BYTES} bytes"


def functions_are_small_enough(file: SourceFile) -> Iterator[str]:
    """A function fits a screen."""
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            if size > MAX_FUNCTION_LINES:
                yield f"line {node.lineno}: {node.name} has {size} lines, more than {MAX_FUNCTION_LINES}"


def module_states_its_duty_and_threading(file: SourceFile) -> Iterator[str]:
    """A module opens with what it answers for, and a line on threads."""
    if not file.is_python:
        return
    docstring = ast.get_docstring(_parsed(file)) or ""
    has_room = file.path.name != "__init__.py" and len(file.lines) > SMALL_MODULE_LINES
    if not docstring:
        yield "no module docstring"
    elif file.path.parts[0] in CODE and has_room and not re.search(r"^Threading: \S", docstring, re.MULTILINE):
        yield "the module docstring has no line 'Threading: ...'"


def name_says_what_it_answers_for(file: SourceFile) -> Iterator[str]:
    """No drawer for odds and ends."""
    if file.is_python and VAGUE_NAME.match(file.path.stem):
        yield f"the name {file.path.stem} says nothing about what it answers for"


def licence_is_named_first(file: SourceFile) -> Iterator[str]:
    """One SPDX line opens every module."""
    if file.is_python and file.lines[:1] != [SPDX]:
        yield f"the first line is not '{SPDX}'"


def lock_is_hashed_and_names_no_host(file: SourceFile) -> Iterator[str]:
    """Every pinned package has its hashes, and the lock file says nothing of where it was made."""
    if file.path.suffix != ".lock":
        return
    if "://" in file.text:
        yield "names a host"
    for requirement in re.split(r"(?<!\\)\n", file.text.strip()):
        if not requirement.strip():
            continue
        if not re.match(r"[A-Za-z0-9._-]+(\[[\w,-]+\])?==\S+", requirement):
            yield f"not a pinned package: {requirement.splitlines()[0]}"
        elif "--hash=sha256:" not in requirement:
            yield f"no hash: {requirement.splitlines()[0]}"


def exemptions_carry_a_reason(file: SourceFile) -> Iterator[str]:
    """Whoever is exempted from a check says why, on the same line or in a comment right above."""
    if file.path.name == "pyproject.toml":
        yield from _rules_ignored_without_reason(file)
    if not file.is_python:
        return
    for number, line in enumerate(file.lines, 1):
        found = EXEMPTION.search(line)
        above = file.lines[number - 2].strip() if number > 1 else ""
        # In a string it is a pattern or an example, as in this module.
        if not found or line[: found.start()].count('"') % 2:
            continue
        codes_removed = re.sub(r"\[[\w, -]+\]|\b[A-Z]+[0-9]+\b", "", found["rest"])
        if not REASON.search(codes_removed) and not above.startswith("#"):
            yield f"line {number}: an exemption without a reason"


def _rules_ignored_without_reason(file: SourceFile) -> Iterator[str]:
    section = re.search(r"^\[tool\.ruff\.lint\]\n(.*?)(?=^\[tool\.(?!ruff)|\Z)", file.text, re.MULTILINE | re.DOTALL)
    for line in section[1].splitlines() if section else []:
        if RULE_CODE.match(line) and not REASON.search(line.partition("#")[2]):
            yield f"a rule ignored without a reason: {line.strip()}"


def tests_assert_something(file: SourceFile) -> Iterator[str]:
    """A test that cannot fail is none."""
    if file.path.parts[0] != "tests":
        return
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            body = "\n".join(ast.unparse(statement) for statement in node.body)
            if not ASSERTS.search(body):
                yield f"line {node.lineno}: {node.name} asserts nothing"


def no_exception_is_swallowed_whole(file: SourceFile) -> Iterator[str]:
    """`except Exception: pass` hides every fault there will ever be."""
    for node in ast.walk(_parsed(file)):
        if not isinstance(node, ast.ExceptHandler) or not isinstance(node.body[0], ast.Pass):
            continue
        if node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}:
            yield f"line {node.lineno}: swallows every exception"


def speaks_of_no_machine(file: SourceFile) -> Iterator[str]:
    """Nothing names a folder of the machine it was written on."""
    places = [f"{file.root}/"] if len(file.root.parts) > len(("/", "folder")) else []
    for number, line in enumerate(file.lines, 1):
        if HOME_FOLDER.search(line) or any(place in line for place in places):
            yield f"line {number}: names a folder of one machine"


def environment_is_read_in_config_alone(file: SourceFile) -> Iterator[str]:
    """Only `glancefs/config.py` knows that there is an environment."""
    if file.path.parts[0] not in CODE or file.path == PurePosixPath("glancefs/config.py"):
        return
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.environb", "os.getenv"}:
            yield f"line {node.lineno}: reads the environment"


def links_lead_somewhere(file: SourceFile) -> Iterator[str]:
    """A page links to pages that exist."""
    if file.path.suffix != ".md":
        return
    for target in MARKDOWN_LINK.findall(file.text):
        if not (file.root / file.path.parent / target).exists():
            yield f"a link to {target}, which does not exist"


RULES: tuple[Rule, ...] = (
    top_level_is_the_agreed_one,
    file_is_small_enough,
    functions_are_small_enough,
    module_states_its_duty_and_threading,
    name_says_what_it_answers_for,
    licence_is_named_first,
    lock_is_hashed_and_names_no_host,
    exemptions_carry_a_reason,
    tests_assert_something,
    no_exception_is_swallowed_whole,
    speaks_of_no_machine,
    environment_is_read_in_config_alone,
    links_lead_somewhere,
)


# Several rules look at a file, one after the other.
@lru_cache(maxsize=1)
def _parsed(file: SourceFile) -> ast.Module:
    return ast.parse(file.text if file.is_python else "")
