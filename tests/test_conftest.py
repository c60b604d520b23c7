"""The rules of `tests/conftest.py`, seen on tests that break them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEAKED_TASK = """
import asyncio
async def test_leaks():
    loop = asyncio.get_running_loop()
    loop.kept = loop.create_task(asyncio.sleep(60), name="forgotten")
"""
FIXTURE_TASK = """
import asyncio, pytest
@pytest.fixture
async def server():
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(asyncio.sleep(60))
        yield
        task.cancel()
async def test_uses_it(server):
    assert len(asyncio.all_tasks()) == 2
"""
LEAKED_THREAD = """
import threading
def test_leaks():
    release = threading.Event()
    threading.Thread(target=release.wait, args=(10,), name="forgotten").start()
"""
E2E = """
import pytest
pytestmark = pytest.mark.e2e
def test_needs_parts():
    pass
"""
PARTS_MISSING = """
from tests import conftest
conftest._missing_parts = lambda: "docker.io"
"""


def run_suite(tmp_path: Path, source: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on `source` under the rules of this suite, on a machine without docker.io."""
    (tmp_path / "test_it.py").write_text(source)
    (tmp_path / "conftest.py").write_text(PARTS_MISSING)
    arguments = ["-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    arguments += ["-c", str(ROOT / "pyproject.toml"), f"--basetemp={tmp_path / 'own'}"]
    arguments += [str(tmp_path)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("P2PDIST_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        env={**environment, "PYTHONPATH": str(ROOT), **variables},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (LEAKED_TASK, "leaked tasks: ['forgotten']"),
        (LEAKED_THREAD, "leaked threads: ['forgotten']"),
    ],
)
def test_a_leak_fails(tmp_path: Path, source: str, message: str) -> None:
    done = run_suite(tmp_path, source)

    assert done.returncode == 1
    assert message in done.stdout


def test_what_a_fixture_ends_is_no_leak(tmp_path: Path) -> None:
    done = run_suite(tmp_path, FIXTURE_TASK)

    assert done.returncode == 0, done.stdout


def test_missing_parts_are_named_at_the_end(tmp_path: Path) -> None:
    done = run_suite(tmp_path, E2E)

    assert done.returncode == 0
    assert "not run: e2e" in done.stdout
    assert "missing: docker.io\nto run:  P2PDIST_REQUIRE_E2E=1 make test" in done.stdout


def test_missing_parts_fail_where_they_are_required(tmp_path: Path) -> None:
    done = run_suite(tmp_path, E2E, P2PDIST_REQUIRE_E2E="1")

    assert done.returncode == 1
    assert "P2PDIST_REQUIRE_E2E=1, but missing: docker.io" in done.stdout
