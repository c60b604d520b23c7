"""A mistake in a decisive line of the chart is noticed by the tests that are named for it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.helm.chart import ROOT, TOOLS
from tests.mutants.catalogue import Mutant, read_catalogue
from tests.mutants.running import UNMUTATED_S, Verdict, Workspace

MUTANTS: Final = read_catalogue(Path(__file__).with_name("mutants.toml"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the tree in which the tests pass."""
    made = Workspace(ROOT, tmp_path_factory.mktemp("mutants") / "tree")
    tools = made.directory / TOOLS.relative_to(ROOT)
    tools.parent.mkdir()
    tools.symlink_to(TOOLS)
    made.check_imports()
    tests = sorted({test for mutant in MUTANTS for test in mutant.tests})
    unmutated = made.run(tests, UNMUTATED_S)
    assert unmutated.passed, unmutated.why
    return made


@pytest.mark.timeout(2 * UNMUTATED_S)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mistake_in_the_chart_is_noticed(workspace: Workspace, mutant: Mutant) -> None:
    with workspace.mutated(mutant):
        outcome = workspace.run(mutant.tests, UNMUTATED_S)

    assert outcome.verdict is Verdict.KILLED, outcome.why
