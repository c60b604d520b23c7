"""Sums over all hosts of the few numbers that each reports with its heartbeat.

Prometheus then scrapes the trackers and a sample of the peers instead of every host.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final

# Full: further names are not summed. The hosts report a dozen.
NAMES_MAX: Final = 32
# Whole numbers up to here stay exact in a float, so adding and taking away leaves no residue.
VALUE_MAX: Final = float(1 << 53)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Sums:
    def __init__(self) -> None:
        self.totals: dict[str, float] = {}

    def replace(self, old: dict[str, float], new: dict[str, float]) -> dict[str, float]:
        """Take `old` out and put `new` in; return what of `new` was taken."""
        for name, value in old.items():
            self.totals[name] -= value
        taken = {name: value for name, value in new.items() if self._takes(name, value)}
        for name, value in taken.items():
            self.totals[name] = self.totals.get(name, 0.0) + value
        return taken

    def validate(self, reported: Iterable[dict[str, float]]) -> None:
        """Assert that the totals are those of `reported`, what each host said last."""
        sums = dict.fromkeys(self.totals, 0.0)
        for numbers in reported:
            for name, value in numbers.items():
                sums[name] += value
        assert len(self.totals) <= NAMES_MAX
        assert all(math.isclose(sums[name], self.totals[name], abs_tol=1e-6) for name in sums)

    def _takes(self, name: str, value: float) -> bool:
        if not -VALUE_MAX <= value <= VALUE_MAX:  # also keeps out NaN
            return False
        if name in self.totals:
            return True
        if len(self.totals) >= NAMES_MAX or _NAME.fullmatch(name) is None:
            return False
        self.totals[name] = 0.0
        return True
