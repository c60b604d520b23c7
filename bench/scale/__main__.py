"""Measure how costs grow with hosts; print figures, TARGET lines; write `build/bench-scale.json`.

python -m bench.scale                         all parts
python -m bench.scale costs                   10,000 connections: memory, pauses, the time to stop
python -m bench.scale storm5000 storm15000    a tracker's fall, with a quarter of a core and a whole
"""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.scale.costs import costs
from bench.scale.storm import storm
from bench.targets import publish
from p2pdist.demo.report import Target
from p2pdist.runtime.daemon import raise_descriptor_limit

Found = tuple[dict[str, Any], list[Target]]


def _costs() -> Found:
    found = uvloop.run(costs(10_000))
    targets = [
        Target("scale.kb_per_connection", found["kb_per_connection"], "<=", 8),
        Target("scale.tracker_pause_ms", found["lag_ms"], "<=", 20),
        Target("scale.tracker_stop_s", found["stop_s"], "<=", 5),
    ]
    return found, targets


def _storm(hosts: int, share: float) -> Found:
    found = uvloop.run(storm(hosts, share))
    return found, [Target(f"scale.storm_{hosts}_s", found["all_up_s"], "<=", 60)]


PARTS: Final[dict[str, Callable[[], Found]]] = {
    "costs": _costs,
    "storm5000": lambda: _storm(5_000, 0.25),
    "storm15000": lambda: _storm(15_000, 1.0),
}


def main() -> int:
    names = sys.argv[1:] or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        print(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
        return 2
    raise_descriptor_limit()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    print(
        f"machine: {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"{limit} descriptors a process"
    )
    figures: dict[str, Any] = {}
    targets: list[Target] = []
    for name in names:
        found, reached = PARTS[name]()
        for what, value in found.items():
            print(f"{name:<12} {what:<24} {f'{value:.4g}' if isinstance(value, float) else value}")
        figures[name] = found
        targets += reached
    return 0 if publish(targets, figures, Path("build/bench-scale.json")) else 1


if __name__ == "__main__":
    sys.exit(main())
