"""Figures that a test saw, for `make bench` to print: one JSON file each in `build/figures`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

DIRECTORY: Final = Path(
    os.environ.get("FIGURES_DIR", Path(__file__).parents[1] / "build" / "figures")
)


def note(name: str, value: float) -> None:
    """Keep `value` under `name`, such as `dc.cross_ratio`; print it as well."""
    print(f"{name} {value:.3f}")
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    (DIRECTORY / f"{name}.json").write_text(json.dumps(value) + "\n")
