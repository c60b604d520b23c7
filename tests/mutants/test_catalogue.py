"""The catalogue fits the tree: a line that was rewritten takes its mutant with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.mutants.catalogue import Mutant, read_catalogue

ROOT = Path(__file__).parents[2]
MUTANTS = read_catalogue()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_tree(mutant: Mutant) -> None:
    assert mutant.applied_to((ROOT / mutant.file).read_text())
    assert mutant.tests
    for test in mutant.tests:
        assert (ROOT / test.partition("::")[0]).is_file()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_no_mutant_is_left_to_chance(mutant: Mutant) -> None:
    """What a state machine of Hypothesis comes upon depends on its seed, and on the machine."""
    assert any("_machine.py" not in test for test in mutant.tests)


def test_no_two_have_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


ONE = Mutant("one", "m.py", "a < b", "a <= b", ("test_m.py",))


@pytest.mark.parametrize(
    ("source", "why"),
    [("a > b", "0 times"), ("a < b\na < b", "2 times"), ("'a < b", "unterminated")],
)
def test_a_mutant_that_does_not_fit_is_told(source: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ONE.applied_to(source)


def test_a_mutant_that_changes_nothing_is_told() -> None:
    with pytest.raises(ValueError, match="nothing"):
        dataclasses.replace(ONE, by="a  <  b").applied_to("a < b")


def test_what_is_no_python_is_compared_as_text() -> None:
    template = dataclasses.replace(ONE, file="t.yaml", text="{{- if a }}", by="{{- if b }}")

    assert template.applied_to("{{- if a }}: {") == "{{- if b }}: {"
    with pytest.raises(ValueError, match="nothing"):
        dataclasses.replace(template, by=template.text).applied_to("{{- if a }}")
