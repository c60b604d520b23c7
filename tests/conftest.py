"""Rules for every test: nothing leaks, random runs can be repeated, missing parts are said aloud.

Sockets and files need no check here: an unclosed one is a ResourceWarning, and warnings are errors.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Generator
from functools import cache
from typing import Final

import hypothesis
import pytest
import pytest_asyncio

REQUIRE_E2E: Final = "P2PDIST_REQUIRE_E2E"
# What was cancelled or closed a moment ago gets this long to end; what nobody ended never does.
ENDING_S: Final = 1.0
THREADS_BEFORE: Final = pytest.StashKey[list[threading.Thread]]()

# A failure prints what repeats it; a loaded machine is no failure.
hypothesis.settings.register_profile(
    "p2pdist", parent=hypothesis.settings(), print_blob=True, deadline=None
)
hypothesis.settings.load_profile("p2pdist")


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail where a task outlives the test and its fixtures."""
    yield
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, leaked = await asyncio.wait(others, timeout=ENDING_S)
        if leaked:
            pytest.fail(f"leaked tasks: {sorted(task.get_name() for task in leaked)}")


@pytest.fixture(autouse=True)
def _leak_checks(request: pytest.FixtureRequest) -> None:
    # Set up before the test's own fixtures, so it is torn down after them.
    if pytest_asyncio.is_async_test(request.node):
        request.getfixturevalue("no_leaked_tasks")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, bool | None, bool | None]:
    item.stash[THREADS_BEFORE] = threading.enumerate()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Fail where a thread that would keep the process alive outlives the test and its fixtures."""
    yield
    before = item.stash[THREADS_BEFORE]
    leaked = [t for t in threading.enumerate() if t not in before and not t.daemon]
    for thread in leaked:
        thread.join(ENDING_S)
    names = sorted(thread.name for thread in leaked if thread.is_alive())
    if names:
        pytest.fail(f"leaked threads: {names}")


@cache
def _missing_parts() -> str:
    from tests.e2e.harness.parts import missing_parts

    return ", ".join(missing_parts())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip end-to-end tests whose parts are missing; fail them where they were asked for."""
    if item.get_closest_marker("e2e") is None or not (missing := _missing_parts()):
        return
    if os.environ.get(REQUIRE_E2E) == "1":
        pytest.fail(f"{REQUIRE_E2E}=1, but missing: {missing}", pytrace=False)
    pytest.skip(f"missing: {missing}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if any("e2e" in report.keywords for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.section("not run: e2e")
        terminalreporter.line(f"missing: {_missing_parts()}")
        terminalreporter.line(f"to run:  {REQUIRE_E2E}=1 make test")
