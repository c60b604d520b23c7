"""What a board is made of. A series' datacenter and role come from `p2pdist_node_info`, so the boards
work with whatever labels a scrape configuration adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

DC: Final = '* on(instance) group_left(dc) p2pdist_node_info{dc=~"$dc"}'
RATE: Final = "[$__rate_interval]"

Kind = Literal["timeseries", "stat", "table"]


@dataclass(frozen=True, slots=True)
class Query:
    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    help: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 7
    warn: float | None = None
    """From here on it is shown orange, from `bad` on red."""
    bad: float | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    query: str
    many: bool = True


@dataclass(frozen=True, slots=True)
class Board:
    uid: str
    title: str
    help: str
    panels: Sequence[Panel]
    variables: Sequence[Variable] = field(default_factory=tuple)


DCS: Final = Variable("dc", "label_values(p2pdist_node_info, dc)")
