"""Measure how N hosts on limited links get one image at once, beside aria2 and the limit.

    python -m bench.swarm                     every case, two rounds (15 minutes)
    python -m bench.swarm --case warm_8x100 --rounds 5
    python -m bench.swarm --list

Needs root, network namespaces, docker-registry and aria2 (`make bench-swarm` installs them). Real
daemons, each host a namespace behind a token bucket; congestion control is reno. Contenders take
turns (A B A B); figures are medians over the rounds. The limit of a case is the size of its image
over the link's speed, headers counted. Writes `build/bench-swarm.json`; prints TARGET lines.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.swarm.cases import CASES, Case
from bench.swarm.contenders import Aria2, Contender, P2pdist, aria2_version
from bench.swarm.images import make_image
from bench.swarm.runs import Run, measured
from bench.targets import publish
from p2pdist.demo.report import Target
from tests.e2e.harness.processes import LabError

OUT: Final = Path("build/bench-swarm.json")
SPREAD_ROUNDS: Final = 5


def main() -> int:
    args = _parse()
    if args.list:
        for case in CASES:
            print(f"{case.name:20} {case.hosts} hosts, {case.mbit_per_s} Mbit/s, {case.layers_mib}")
        return 0
    chosen = [case for case in CASES if not args.case or case.name in args.case]
    runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="p2pdist-swarm-") as work:
        for case in chosen:
            image = make_image(case.layers_mib, Path(work) / case.name)
            for _ in range(args.rounds):
                contenders: list[Contender] = [P2pdist()]
                if case.rival and not args.no_rival:
                    contenders.append(Aria2())
                for contender in contenders:
                    run = measured(case, contender, image)
                    runs[case.name, contender.name].append(run)
                    print(_line(run, case), flush=True)
            shutil.rmtree(image.layout)
    figures: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()},
        "python": platform.python_version(),
        "runs": [asdict(run) for each in runs.values() for run in each],
    }
    if not args.no_rival:
        figures["aria2"] = aria2_version()
    met = publish(_targets(chosen, runs), figures, OUT)
    print(f"written: {OUT}")
    return 0 if met or not args.strict else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [case.name for case in CASES]
    parser.add_argument("--case", action="append", choices=names, help="only this one; repeatable")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each contender and case")
    parser.add_argument("--no-rival", action="store_true", help="only p2pdist")
    parser.add_argument("--list", action="store_true", help="show the cases and end")
    parser.add_argument("--strict", action="store_true", help="exit 1 where a target is short")
    return parser.parse_args()


def _line(run: Run, case: Case) -> str:
    copies = "" if run.proxy_copies is None else f" {run.proxy_copies:.2f} copies from the proxy,"
    gap = "" if run.gap_s is None else f" gap {run.gap_s:.1f} s, first {run.first_byte_s:.2f} s,"
    trouble = "".join(f", {n} {name}" for name, n in run.trouble.items() if n)
    return (
        f"{case.name:18} {run.contender:8} {run.seconds:6.1f} s = {run.ratio:.2f} x "
        f"{case.limit_s:.1f} s,{copies}{gap} {run.cpu_s_per_gb:.1f} CPU-s/GB, "
        f"{run.peak_mb:.0f} MB, {run.foreign_cores:.1f} foreign cores{trouble}"
    )


def _targets(chosen: list[Case], runs: dict[tuple[str, str], list[Run]]) -> list[Target]:
    targets = []
    for case in chosen:
        ours = runs[case.name, P2pdist.name]
        targets += _case_targets(case, ours, runs.get((case.beside or "", P2pdist.name)))
        if case.name == "cold_8x100":
            if theirs := runs.get((case.name, Aria2.name)):
                targets += _rival_targets(ours, theirs)
            if len(ours) >= SPREAD_ROUNDS:
                spread = max(r.seconds for r in ours) / min(r.seconds for r in ours)
                targets.append(Target("swarm.spread", spread, "<=", 1.15))
    gaps = [run.gap_s for each in runs.values() for run in each if run.gap_s is not None]
    targets.append(Target("swarm.longest_gap_s", max(gaps), "<=", 2.0))
    return targets


def _case_targets(case: Case, ours: list[Run], beside: list[Run] | None) -> list[Target]:
    targets = []
    if case.ratio_max is not None and case.beside is None:
        ratio = statistics.median(run.ratio for run in ours)
        targets.append(Target(f"swarm.{case.name}.ratio", ratio, "<=", case.ratio_max))
    if case.ratio_max is not None and beside:
        ratio = _median_s(ours) / _median_s(beside)
        targets.append(Target(f"swarm.{case.name}.vs_{case.beside}", ratio, "<=", case.ratio_max))
    if case.copies is not None:
        name, copies_max = case.copies
        copies = statistics.median(run.proxy_copies or 0.0 for run in ours)
        targets.append(Target(f"swarm.{name}", copies, "<=", copies_max))
    return targets


def _rival_targets(ours: list[Run], theirs: list[Run]) -> list[Target]:
    cpu, rival_cpu = (statistics.median(r.cpu_s_per_gb for r in runs) for runs in (ours, theirs))
    return [
        Target("swarm.time_vs_aria2", _median_s(ours) / _median_s(theirs), "<=", 0.85),
        Target("swarm.cpu_vs_aria2_100mbit", cpu / rival_cpu, "<=", 1.0),
    ]


def _median_s(runs: list[Run]) -> float:
    return statistics.median(run.seconds for run in runs)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"bench.swarm: {error}")
