"""Runs tests on copies of the tree, one mutant at a time."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from tests.mutants.catalogue import Mutant

NOT_COPIED: Final = (".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "build", "dist")
# A mutant may make a test wait for ever. What takes so many times as long as it does on the
# unmutated tree, and so much more, is no busy machine any more.
TIMES_AS_LONG: Final = 5.0
GRACE_S: Final = 15.0
UNMUTATED_S: Final = 300.0

PASSED: Final = 0
SOME_FAILED: Final = 1
"""pytest's exit codes; any other one says that the tests did not run."""


class Verdict(Enum):
    KILLED = "killed"
    SURVIVED = "SURVIVED"
    BROKEN = "BROKEN"
    """The tests did not even begin, which proves nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    verdict: Verdict
    why: str
    """The test that noticed it, or what went wrong."""
    seconds: float

    @property
    def passed(self) -> bool:
        """No test failed: good without a mutant, and bad with one."""
        return self.verdict is Verdict.SURVIVED


class Workspace:
    """A copy of the tree, in which nothing but the mutated file ever differs."""

    def __init__(self, root: Path, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(root, directory, ignore=shutil.ignore_patterns(*NOT_COPIED))
        # Sessions of pytest that end side by side take away each other's directories, and now and
        # then one of them fails of it when all its tests have passed (unclosed scandir iterator).
        self._temporary = directory.with_name(f"{directory.name}.tmp")
        self._environment = {**os.environ, "PYTHONPATH": str(directory)}

    def check_imports(self) -> None:
        """Raise RuntimeError unless tests in here import the package from here."""
        look = [sys.executable, "-c", "import p2pdist; print(p2pdist.__file__)"]
        said = subprocess.run(
            look, cwd=self.directory, env=self._environment, capture_output=True, text=True
        )
        if self.directory not in Path(said.stdout.strip()).parents:
            raise RuntimeError(f"the copy is not what is imported: {said.stdout or said.stderr}")

    @contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        """The tree has the mistake inside of the block. Raises ValueError if it does not fit."""
        path = self.directory / mutant.file
        source = path.read_text()
        mutated = mutant.applied_to(source)
        try:
            _replace_module(path, mutated)
            yield
        finally:
            _replace_module(path, source)

    def run(self, tests: Sequence[str], within_s: float) -> Outcome:
        """Run `tests` until the first one fails; KILLED also when they take longer than that."""
        options = ("-x", "-q", "-rfE", "-p", "no:cacheprovider", "--hypothesis-seed=0")
        own = f"--basetemp={self._temporary}"
        began_s = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, own, *tests],
            cwd=self.directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the tests' own children as well
            process.communicate()
            return Outcome(Verdict.KILLED, f"not over after {within_s:.0f} s", within_s)
        verdict, why = _judged(process.returncode, output)
        return Outcome(verdict, why, time.monotonic() - began_s)


def limit_s(unmutated_s: float) -> float:
    """How long tests may take with a mutant that took `unmutated_s` without."""
    return TIMES_AS_LONG * unmutated_s + GRACE_S


def tried(workspace: Workspace, mutant: Mutant, unmutated_s: float) -> Outcome:
    """Run the nearest tests of `mutant` on it."""
    try:
        with workspace.mutated(mutant):
            return workspace.run(mutant.tests, limit_s(unmutated_s))
    except ValueError as error:
        return Outcome(Verdict.BROKEN, str(error), 0.0)


def _judged(code: int, output: str) -> tuple[Verdict, str]:
    if code == PASSED:
        return Verdict.SURVIVED, ""
    failed = re.search(r"^(?:FAILED|ERROR) (\S+::.+?)(?: - .*)?$", output, re.MULTILINE)
    if code == SOME_FAILED and failed is not None:
        return Verdict.KILLED, failed[1]
    return Verdict.BROKEN, f"pytest ended with {code}:\n{output[-2000:]}"


def _replace_module(path: Path, source: str) -> None:
    # Compiled code is told from its source by size and whole seconds, which may be the same.
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
    path.write_text(source)
