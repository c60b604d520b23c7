"""What a fault row showed: one JSON file a row and variant, which `make faults` prints as a table.

A record is written when its test ends, whatever its end: a row that failed says so itself.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

DIRECTORY: Final = Path(
    os.environ.get("P2PDIST_FAULTS_DIR", Path(__file__).parents[2] / "build" / "faults")
)


@dataclass
class FaultRecord:
    """One variant of one row of the catalogue of faults (docs/faults.md)."""

    row: int
    fault: str
    """What was broken, in words."""
    variant: str = ""
    outcome: str = ""
    """What happened, as the test saw it; `failed: …` when the promise was not kept."""
    passed: bool = False
    seconds: float = 0.0
    bytes: dict[str, int] = field(default_factory=dict)
    """Payload by direction or source, such as `upstream` or `wasted`."""
    retries: int = 0
    """Requests that were made again: to other peers, to upstream, or by the client."""
    invariants: list[str] = field(default_factory=list)
    """Those of I1 to I5 that were asserted."""
    late: list[str] = field(default_factory=list)
    """Promised times that were not kept."""

    def took(self, what: str, seconds: float, *, at_most_s: float) -> None:
        """Hold `seconds` against a promised time.

        The table judges it, not the test: beside other work on the same cores a time says nothing
        about this code, and `make faults` has the machine for itself.
        """
        if seconds > at_most_s:
            self.late.append(f"{what} {seconds:.2f} s, promised {at_most_s:g} s")

    @property
    def file_name(self) -> str:
        slug = "-".join(self.variant.split()).replace("/", "-")
        return f"row-{self.row:02}{'-' + slug if slug else ''}.json"


@contextmanager
def recorded(row: int, fault: str, variant: str = "") -> Iterator[FaultRecord]:
    """Yield the record to fill in; write it when the block ends, as failed if it raises."""
    record = FaultRecord(row, fault, variant)
    began_s = time.monotonic()
    try:
        yield record
        assert record.outcome, "a row says what happened"
        record.passed = True
    except BaseException as error:
        record.outcome = f"failed: {type(error).__name__}: {error}"[:300]
        raise
    finally:
        record.seconds = round(time.monotonic() - began_s, 3)
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(record), indent=2, sort_keys=True)
        (DIRECTORY / record.file_name).write_text(text + "\n")


def read_all(directory: Path = DIRECTORY) -> list[FaultRecord]:
    """Return all records, by row and variant."""
    found = [FaultRecord(**json.loads(p.read_text())) for p in directory.glob("row-*.json")]
    return sorted(found, key=lambda record: (record.row, record.variant))
