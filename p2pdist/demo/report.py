"""What the demonstration found: a table per host, and targets with their verdicts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from p2pdist.runtime.tree import write_named


@dataclass(frozen=True, slots=True)
class HostRow:
    """Bytes are payload that came in at this host's peer."""

    name: str
    seconds: float
    verified: bool
    error: str
    peers: int
    proxy: int
    wan: int
    upstream: int


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
        value = f"{self.value:.3f}".rstrip("0").rstrip(".")
        verdict = "ok" if self.ok else "short"
        return f"TARGET {self.name} {value} {self.relation} {self.goal:g} {verdict}"


def table(rows: list[HostRow]) -> list[str]:
    """Lines of the table of hosts, in MB."""
    columns = "".join(f"{name:>10}" for name in ("peers", "proxy", "other dc", "upstream"))
    lines = [f"{'host':<12}{'time':>8}{columns}   result"]
    for row in rows:
        parts = [row.peers, row.proxy, row.wan, row.upstream]
        cells = "".join(f"{nbytes / 1e6:>7.1f} MB" for nbytes in parts)
        result = "verified" if row.verified else f"FAILED: {row.error}"
        lines.append(f"{row.name:<12}{row.seconds:>6.1f} s{cells}   {result}")
    return lines


def write_json(
    path: Path, rows: list[HostRow], targets: list[Target], facts: dict[str, Any]
) -> None:
    document = {
        "schema_version": 1,
        **facts,
        "hosts": [asdict(row) for row in rows],
        "targets": [{**asdict(target), "ok": target.ok} for target in targets],
    }
    write_named(path, (json.dumps(document, indent=2) + "\n").encode())
