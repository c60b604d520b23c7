"""`TARGET` lines and the JSON beside them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    value: float
    relation: Literal["<=", ">="]
    goal: float

    @property
    def ok(self) -> bool:
        return self.value <= self.goal if self.relation == "<=" else self.value >= self.goal

    def line(self) -> str:
        verdict = "ok" if self.ok else "short"
        return f"TARGET {self.name} {self.value:.3g} {self.relation} {self.goal:g} {verdict}"


def publish(targets: list[Target], figures: dict[str, Any], path: Path) -> bool:
    """Print the lines and write the file; return whether every target was met."""
    for target in targets:
        print(target.line())
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(target), "ok": target.ok} for target in targets]
    path.write_text(json.dumps({"figures": figures, "targets": rows}, indent=2) + "\n")
    return all(target.ok for target in targets)
