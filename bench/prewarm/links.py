"""What prewarm takes of the links, by real daemons in network namespaces.

The end-to-end tests measure it, so that what the benchmark prints is what they check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from bench.e2e import measured_by
from p2pdist.demo.report import Target

TESTS: Final = (
    "tests/e2e/test_prewarm_rates.py",
    "tests/e2e/test_prewarm.py::test_a_push_is_all_it_takes",
)
_PEAK_MAX: Final = 1.05
_MEAN_MIN: Final = 0.9
_SHARE_MIN: Final = 0.9
_CROSS_DC_MAX: Final = 1.05
_PUSH_TO_READY_MAX_S: Final = 30

_Row = tuple[str, tuple[str, ...], Callable[[list[float]], float], Literal["<=", ">="], float]
_TARGETS: Final[tuple[_Row, ...]] = (
    ("prewarm.rate_peak_ratio", ("_host", "_dc"), max, "<=", _PEAK_MAX),
    ("prewarm.rate_mean_ratio", ("_host", "_dc"), min, ">=", _MEAN_MIN),
    ("prewarm.runtime_pull_share", ("",), min, ">=", _SHARE_MIN),
    ("prewarm.cross_dc_ratio", ("",), max, "<=", _CROSS_DC_MAX),
    ("prewarm.push_to_ready_s", ("",), max, "<=", _PUSH_TO_READY_MAX_S),
)
"""Name, endings of the figures behind it, which of them counts, relation, goal."""


def measure() -> dict[str, Any]:
    return dict(measured_by(*TESTS))


def targets(figures: Mapping[str, Any]) -> tuple[list[Target], list[str]]:
    """The targets, and the names of those that nothing was measured for: these are missed too.

    Of a rate's two measurements, at one host and at a datacenter's border, the worse one counts.
    """
    found = []
    lacking = []
    for name, endings, worst, relation, goal in _TARGETS:
        values = [figures.get(name + ending) for ending in endings]
        measured = [value for value in values if value is not None]
        if len(measured) == len(endings):
            found.append(Target(name, worst(measured), relation, goal))
        else:
            lacking.append(name)
    return found, lacking
