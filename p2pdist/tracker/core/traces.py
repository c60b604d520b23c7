"""What starts of containers read of a layer, as hosts saw it: the next ones fetch that ahead.

Nothing of it is believed but for what it costs: a host that lies makes others fetch parts of a
layer that they do not read at once, and that come anyhow.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from p2pdist.model.control import TRACE_UNITS_MAX
from p2pdist.model.ids import Digest

LAYERS_MAX: Final = 4096
"""At 6 kB each."""
AT_ONCE_MAX: Final = 8
"""Of a layer that many traces are taken as they come; a fleet that starts in one moment sends as
many as it has hosts, and all say the same."""
EVERY_S: Final = 10.0
"""After those."""
WEIGHT_MAX: Final = 32
"""Of all traces until now, against the next one: images change what they read."""
SHARE_MIN: Final = 0.25
"""Of the traces that have to have a unit for it to be told."""


@dataclass(slots=True)
class _Merged:
    traces: int
    """That are counted here, at most WEIGHT_MAX."""
    taken_s: float
    """When the last one came."""
    units: array[int]
    counts: array[int]
    """How many traces have a unit."""
    places: array[int]
    """The sum of its places in them."""


class Traces:
    """A trace is a list of units (MiB of a layer's archive), in the order in which they were first
    read. Costs as much as a trace is long."""

    def __init__(self) -> None:
        self._merged: LRUCache[Digest, _Merged] = LRUCache(LAYERS_MAX)

    def __len__(self) -> int:
        return len(self._merged)

    def add(self, layer: Digest, units: list[int], now_s: float) -> None:
        known = self._merged.get(layer)
        if known is None:
            known = _Merged(0, now_s, array("I"), array("H"), array("I"))
        elif known.traces >= AT_ONCE_MAX and now_s < known.taken_s + EVERY_S:
            return
        self._merged[layer] = _merged(known, units, now_s)

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        for known in self._merged.values():
            assert 1 <= known.traces <= WEIGHT_MAX
            assert len(known.units) == len(known.counts) == len(known.places) <= TRACE_UNITS_MAX
            assert len(set(known.units)) == len(known.units)
            assert all(1 <= count <= known.traces for count in known.counts)

    def of(self, layer: Digest) -> list[int]:
        """The units that a start is likely to read, in the order in which it is likely to."""
        known = self._merged.get(layer)
        if known is None:
            return []
        least = SHARE_MIN * known.traces
        return [unit for unit, n in zip(known.units, known.counts, strict=True) if n >= least]


def _merged(known: _Merged, units: list[int], now_s: float) -> _Merged:
    half = 2 if known.traces >= WEIGHT_MAX else 1
    table = {
        unit: (count // half, place // half)
        for unit, count, place in zip(known.units, known.counts, known.places, strict=True)
    }
    for place, unit in enumerate(dict.fromkeys(units)):
        count, places = table.get(unit, (0, 0))
        table[unit] = count + 1, places + place
    rows = [(unit, *row) for unit, row in table.items() if row[0]]
    rows.sort(key=lambda row: -row[1])
    kept = sorted(rows[:TRACE_UNITS_MAX], key=lambda row: row[2] / row[1])
    return _Merged(
        known.traces // half + 1,
        now_s,
        array("I", [row[0] for row in kept]),
        array("H", [row[1] for row in kept]),
        array("I", [row[2] for row in kept]),
    )
