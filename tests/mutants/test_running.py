"""The runner on a tree of its own: what it calls noticed, survived and broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.__main__ import part_of
from tests.mutants.catalogue import Mutant
from tests.mutants.running import PASSED, SOME_FAILED, Verdict, Workspace, tried

NOTICED, UNNOTICED = ("a + b", "a - b"), ("return 1", "return 2")
MODULE = """
def add(a, b):
    return a + b

def untested():
    return 1
"""
LONG_S = 600.0
TESTS = """
from p2pdist.sums import add

def test_sums_are_right():
    assert add(1, 2) == 3
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "tree"
    (root / "p2pdist").mkdir(parents=True)
    (root / "p2pdist" / "__init__.py").touch()
    (root / "p2pdist" / "sums.py").write_text(MODULE)
    (root / "test_sums.py").write_text(TESTS)
    return Workspace(root, tmp_path / "copy")


def mutant(text: str, by: str) -> Mutant:
    return Mutant("toy", "p2pdist/sums.py", text, by, ("test_sums.py",))


def test_a_mutant_lasts_for_one_trial(workspace: Workspace) -> None:
    """Also where source and compiled code are as long as before, within a second."""
    workspace.check_imports()
    for change, verdict in (
        (NOTICED, Verdict.KILLED),
        (UNNOTICED, Verdict.SURVIVED),
        (NOTICED, Verdict.KILLED),
    ):
        assert tried(workspace, mutant(*change), LONG_S).verdict is verdict
        assert workspace.run(["test_sums.py"], LONG_S).passed


def test_what_noticed_it_is_named(workspace: Workspace) -> None:
    assert tried(workspace, mutant(*NOTICED), LONG_S).why == "test_sums.py::test_sums_are_right"


def test_a_mutant_on_which_no_test_begins_proves_nothing(workspace: Workspace) -> None:
    assert tried(workspace, mutant("return a + b", "import"), LONG_S).verdict is Verdict.BROKEN
    no_import = mutant("def add(a, b)", "def other(a, b)")
    assert tried(workspace, no_import, LONG_S).verdict is Verdict.BROKEN


def test_tests_that_do_not_end_noticed_it(workspace: Workspace) -> None:
    endless = mutant("return a + b", "while True: pass")
    with workspace.mutated(endless):
        assert workspace.run(["test_sums.py"], 2.0).verdict is Verdict.KILLED


def test_temporary_files_are_beside_the_copy(workspace: Workspace, tmp_path: Path) -> None:
    """Not where other sessions of pytest, which may end at the same time, have theirs."""
    where = f"def test_where(tmp_path):\n    assert str(tmp_path).startswith({str(tmp_path)!r})\n"
    (workspace.directory / "test_where.py").write_text(where)

    assert workspace.run(["test_where.py"], LONG_S).passed


def test_a_package_from_elsewhere_is_told(workspace: Workspace) -> None:
    (workspace.directory / "p2pdist" / "__init__.py").unlink()
    (workspace.directory / "p2pdist" / "sums.py").unlink()
    (workspace.directory / "p2pdist").rmdir()

    with pytest.raises(RuntimeError, match="not what is imported"):
        workspace.check_imports()


def test_the_codes_are_those_of_pytest() -> None:
    assert (PASSED, SOME_FAILED) == (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_parts_are_all_of_them_and_none_twice(count: int) -> None:
    mutants = [Mutant(str(n), "f", "a", "b", ("t",)) for n in range(7)]
    parts = [part_of(mutants, f"{which}/{count}") for which in range(1, count + 1)]
    assert sorted((m for part in parts for m in part), key=lambda m: m.name) == mutants


@pytest.mark.parametrize("part", ["", "2", "0/2", "3/2", "x/2"])
def test_what_is_no_part_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match=r"part|invalid literal"):
        part_of([], part)
