"""The kept screens, and how what is shown is compared with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import pytest

COLUMNS: Final = 80
KEPT: Final = Path(__file__).parent / "kept"
WRITE: Final = "P2PDIST_WRITE_SCREENS"
"""Set to 1 it writes the screens as they are now; the tests fail all the same."""


def is_screen(name: str, lines: Sequence[str]) -> None:
    """`lines` are the kept screen `name`, colours aside, and no wider than a terminal."""
    shown = "".join(f"{click.unstyle(line)}\n" for line in lines)
    assert max(map(len, shown.splitlines())) <= COLUMNS
    path = KEPT / f"{name}.txt"
    if os.environ.get(WRITE) == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(shown)
        pytest.fail(f"written: {path}; run again without {WRITE}", pytrace=False)
    assert shown == path.read_text()
