# SPDX-License-Identifier: Apache-2.0
"""A test that logs a warning has failed, unless it said that it expects one.

Answers for the marker `expect_log(pattern)` and the fixture of the same name. A pattern is a regular expression,
searched in `LEVEL logger: message`. What is expected and never logged fails the test too, unless it is `optional`.
Does not look at the logs of other processes: `tests.support.processes` does.

Threading: records may come from any thread; the check runs in pytest's main thread.
"""

import logging
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import pytest


@dataclass(slots=True)
class Expectation:
    """A log line that a test says will come."""

    pattern: str
    optional: bool = False
    seen: bool = False


class Collector(logging.Handler):
    """Gathers what is logged at WARNING or above during one test."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record as text, with its traceback."""
        self.lines.append(self.format(record))


@dataclass(slots=True)
class LogCheck:
    """What one test logged, held against what it expected."""

    collector: Collector = field(default_factory=Collector)
    expectations: list[Expectation] = field(default_factory=list)

    def expect(self, pattern: str, *, optional: bool = False) -> None:
        """Permit lines that match; they must come unless `optional`."""
        self.expectations.append(Expectation(pattern, optional=optional))

    def unexpected(self) -> list[str]:
        """The lines that nobody expected. Each is handed out once."""
        lines, self.collector.lines = self.collector.lines, []
        return [line for line in lines if not self._is_expected(line)]

    def missing(self) -> list[str]:
        """The patterns that must have been logged and were not."""
        return [wanted.pattern for wanted in self.expectations if not (wanted.seen or wanted.optional)]

    def _is_expected(self, line: str) -> bool:
        matching = [wanted for wanted in self.expectations if re.search(wanted.pattern, line)]
        for wanted in matching:
            wanted.seen = True
        return bool(matching)


CHECK = pytest.StashKey[LogCheck]()


@pytest.fixture
def expect_log(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`expect_log(pattern, optional=False)`: a warning that matches is no failure of this test."""
    check: LogCheck = request.node.stash[CHECK]
    return check.expect


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "expect_log(pattern, optional=False): a warning that this test logs on purpose")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Listen for the whole of a test, its fixtures included."""
    check = item.stash[CHECK] = LogCheck()
    for marker in item.iter_markers("expect_log"):
        check.expect(*marker.args, **marker.kwargs)
    logging.getLogger().addHandler(check.collector)
    try:
        return (yield)
    finally:
        logging.getLogger().removeHandler(check.collector)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Judge the log after the test's own verdict, so that an assertion that failed is what gets reported."""
    yield
    _judge(item.stash[CHECK], "during the test")


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Judge what the fixtures logged on their way out; lines that were expected must have come by the end."""
    yield
    check = item.stash[CHECK]
    _judge(check, "while the test was cleared away")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that passed without logging what it said it would."""
    report = yield
    missing = item.stash[CHECK].missing()
    if call.when == "teardown" and report.passed and missing and not item.stash.get(ENDED_EARLY, default=False):
        report.outcome = "failed"
        report.longrepr = "expected in the log, and never logged: " + "; ".join(missing)
    if call.when in {"setup", "call"} and not report.passed:
        item.stash[ENDED_EARLY] = True
    return report


ENDED_EARLY = pytest.StashKey[bool]()


def _judge(check: LogCheck, when: str) -> None:
    if lines := check.unexpected():
        pytest.fail(f"logged {when}, and not expected:\n" + "\n".join(lines), pytrace=False)
