"""Prints what the fault rows showed, as a table and a TARGET line: the end of `make faults`."""

from __future__ import annotations

import sys
from typing import Final

from tests.faults.records import FaultRecord, read_all

ROWS: Final = (
    *range(1, 7),
    *range(8, 18),
    *range(21, 26),
    *(27, 28, 30, 31, 33, 34, 35),
    *range(38, 42),
    *range(47, 64),
    *(68, 69),
    *range(70, 78),
    *range(79, 86),
    *range(87, 106),
)
ROWS_TARGET: Final = len(ROWS)
VARIANTS_NAMED_MAX: Final = 5


def passed_rows(records: list[FaultRecord]) -> set[int]:
    """The rows that have records, all of which passed in the promised time."""
    failed = {record.row for record in records if not record.passed or record.late}
    return {record.row for record in records} - failed


def render(records: list[FaultRecord]) -> str:
    """A Markdown table, one line for all variants of a row that showed the same."""
    lines = [
        "| # | fault | outcome | seconds | payload | again |",
        "| --- | --- | --- | ---: | --- | ---: |",
    ]
    alike: dict[tuple[int, str, str, str, int], list[FaultRecord]] = {}
    for r in records:
        payload = ", ".join(f"{name} {count / 1e6:.1f} MB" for name, count in r.bytes.items())
        outcome = "; ".join([r.outcome, *(f"LATE: {late}" for late in r.late)])
        alike.setdefault((r.row, r.fault, outcome, payload, r.retries), []).append(r)
    for (row, fault, outcome, payload, retries), group in alike.items():
        seconds = max(r.seconds for r in group)
        named = f"{fault}{_variants([r.variant for r in group])}"
        lines.append(f"| {row} | {named} | {outcome} | {seconds:.1f} | {payload} | {retries} |")
    return "\n".join(lines)


def _variants(names: list[str]) -> str:
    if len(names) > VARIANTS_NAMED_MAX:
        return f" ({len(names)} variants)"
    return f" ({'; '.join(names)})" if any(names) else ""


def main() -> int:
    records = read_all()
    print(render(records))
    passed = passed_rows(records)
    missing = [row for row in ROWS if row not in passed]
    if missing:
        print(f"\nnot passed: {', '.join(map(str, missing))}")
    verdict = "ok" if len(passed) >= ROWS_TARGET else "short"
    print(f"\nTARGET faults.rows_passed {len(passed)} >= {ROWS_TARGET} {verdict}")
    return 0 if verdict == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
