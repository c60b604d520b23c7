"""What the records of fault rows add up to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import records
from tests.faults.records import FaultRecord, read_all, recorded
from tests.faults.table import passed_rows, render


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


def test_a_row_that_says_nothing_fails(directory: Path) -> None:
    with pytest.raises(AssertionError, match="says what happened"), recorded(4, "a fault"):
        pass

    assert read_all(directory)[0].passed is False


def test_variants_do_not_share_a_file() -> None:
    names = {FaultRecord(5, "a fault", text).file_name for text in ("", "a b", "a/c")}

    assert len(names) == 3
