"""Measure how costs grow with hosts: figures, TARGET lines and `build/bench-scale.json`.

    python -m bench.scale                         every part
    python -m bench.scale links                   a proxy with up to 10,000 links
    python -m bench.scale neighbours              a peer with 4 and with 100 neighbours
    python -m bench.scale costs                   a tracker with 10,000 hosts: memory, pauses, stop
    python -m bench.scale identity                2,000 hosts with certificates, and without
    python -m bench.scale storm5000 storm15000    its fall, with a quarter of a core and a whole one

Needs 20,000 descriptors.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.scale import identity, links, neighbours
from bench.scale.costs import costs
from bench.scale.storm import storm
from bench.targets import publish
from p2pdist.demo.report import Target
from p2pdist.process.daemon import raise_descriptor_limit

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
    "links": links.measure,
    "neighbours": neighbours.measure,
    "costs": _costs,
    "identity": identity.measure,
    "storm5000": lambda: _storm(5_000, 0.25),
    "storm15000": lambda: _storm(15_000, 1.0),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="|".join(PARTS))
    parts = parser.parse_args().parts or list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    raise_descriptor_limit()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    print(
        f"machine: {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"{limit} descriptors a process"
    )
    figures: dict[str, Any] = {}
    targets: list[Target] = []
    for part in parts:
        found, reached = PARTS[part]()
        for what, value in found.items():
            print(f"{part:<12} {what:<28} {f'{value:.4g}' if isinstance(value, float) else value}")
        figures[part] = found
        targets += reached
    return 0 if publish(targets, figures, Path("build/bench-scale.json")) else 1


if __name__ == "__main__":
    raise SystemExit(main())
