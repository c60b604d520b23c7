"""Prints `TARGET` lines and writes the JSON beside them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from p2pdist.demo.report import Target


def publish(targets: list[Target], figures: dict[str, Any], path: Path) -> bool:
    """Print the lines and write the file; return whether every target was met."""
    for target in targets:
        print(target.line())
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(target), "ok": target.ok} for target in targets]
    path.write_text(json.dumps({"figures": figures, "targets": rows}, indent=2) + "\n")
    return all(target.ok for target in targets)
