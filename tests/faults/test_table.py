"""What the records of fault rows add up to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults import records
from tests.faults.records import FaultRecord, read_all, recorded
from tests.faults.table import ROWS, passed_rows, render

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "faults.md").read_text()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(records, "DIRECTORY", tmp_path)
    return tmp_path


def test_a_row_passes_when_all_its_variants_do(directory: Path) -> None:
    with recorded(1, "a fault", "one") as record:
        record.outcome = "served"
        record.took("first byte", 1.0, at_most_s=2.0)
    with pytest.raises(AssertionError), recorded(2, "another fault", "one"):
        raise AssertionError("no bytes")
    with recorded(2, "another fault", "two") as record:
        record.outcome = "served"

    found = read_all(directory)

    assert [(record.row, record.variant) for record in found] == [
        (1, "one"),
        (2, "one"),
        (2, "two"),
    ]
    assert found[1].outcome == "failed: AssertionError: no bytes"
    assert passed_rows(found) == {1}


def test_a_time_that_was_not_kept_fails_the_row_and_not_the_test(directory: Path) -> None:
    with recorded(3, "a fault") as record:
        record.outcome = "served"
        record.took("longest silence", 6.0, at_most_s=5.0)

    found = read_all(directory)

    assert passed_rows(found) == set()
    assert "served; LATE: longest silence 6.00 s, promised 5 s" in render(found)


def test_variants_that_showed_the_same_are_one_line(directory: Path) -> None:
    for row, variants in ((5, "ab"), (6, "abcdef")):
        for variant in variants:
            with recorded(row, "a fault", variant) as record:
                record.outcome = "served"

    lines = render(read_all(directory)).splitlines()[2:]

    assert [line.split(" | ")[1] for line in lines] == ["a fault (a; b)", "a fault (6 variants)"]


def test_a_row_that_says_nothing_fails(directory: Path) -> None:
    with pytest.raises(AssertionError, match="says what happened"), recorded(4, "a fault"):
        pass

    assert read_all(directory)[0].passed is False


def test_variants_do_not_share_a_file() -> None:
    names = {FaultRecord(5, "a fault", text).file_name for text in ("", "a b", "a/c")}

    assert len(names) == 3


# --- the page -------------------------------------------------------------------------------------


def _promised() -> list[tuple[list[int], str]]:
    """(rows, tests) of each line of the table of promises."""
    lines = re.findall(r"^\| ([\d, ]+) \| (`tests/[^|]+`) \|", PAGE, re.MULTILINE)
    return [([int(row) for row in rows.split(",")], tests) for rows, tests in lines]


def test_every_row_has_a_promise_and_a_line_of_a_run() -> None:
    seen = {int(row) for row in re.findall(r"^\| (\d+) \| [^`]", PAGE, re.MULTILINE)}

    assert sorted(row for rows, _ in _promised() for row in rows) == list(ROWS)
    assert seen == set(ROWS)


def test_the_tests_that_the_page_names_record_rows() -> None:
    for _, tests in _promised():
        first, *others = re.findall(r"`([^`]+)`", tests)
        for path in (Path(first), *(Path(first).parent / other for other in others)):
            assert "recorded(" in (TESTS.parent / path).read_text(), path


def test_what_records_rows_is_run_by_make_faults() -> None:
    """It runs two directories, and what is marked elsewhere."""
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text()
        if "faults" not in path.parts and "import recorded" in text:
            assert "pytest.mark.faults" in text, path
