"""Measure how N hosts on limited links get one image at once, beside others and the limit.

    python -m bench.swarm                     every case, two rounds
    python -m bench.swarm --case warm_8x100 --rounds 5
    python -m bench.swarm --list

Needs root, network namespaces, docker-registry, aria2, libtorrent and nginx (`make bench-swarm`
installs them). Real daemons, each host a namespace behind a token bucket; congestion control is
reno. Contenders take turns (A B A B); figures are medians over the rounds. The limit of a case is
the size of its image over the link's speed, headers counted. In `loopback` no link is limited, and
`one_mirror` has no swarm (bench/swarm/mirror.py). Writes `build/bench-swarm.json` and a picture,
`build/bench-swarm.svg`; prints TARGET lines.
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

from bench.swarm import mirror
from bench.swarm.cases import CASES, Case
from bench.swarm.contenders import Contender, P2pdist
from bench.swarm.images import make_image
from bench.swarm.picture import bars
from bench.swarm.rivals import Aria2, Libtorrent, versions
from bench.swarm.runs import Run, measured
from bench.targets import publish
from p2pdist.demo.report import Target
from tests.e2e.harness.processes import LabError

OUT: Final = Path("build/bench-swarm.json")
PICTURE: Final = OUT.with_suffix(".svg")
LOOPBACK: Final = "loopback"
MIRROR_ROUNDS: Final = 7
"""Each takes a second."""
SPREAD_ROUNDS: Final = 5


def main() -> int:
    args = _parse()
    if args.list:
        for case in CASES:
            link = "no limit" if case.mbit_per_s is None else f"{case.mbit_per_s} Mbit/s"
            print(f"{case.name:20} {case.hosts} hosts, {link}, {case.layers_mib}")
        print(f"{mirror.NAME:20} a peer beside nginx, and beside the registry")
        return 0
    chosen = [case for case in CASES if not args.case or case.name in args.case]
    mirrored: mirror.Mirrored | None = None
    runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="p2pdist-swarm-") as work:
        for case in chosen:
            image = make_image(case.layers_mib, Path(work) / case.name)
            for _ in range(args.rounds):
                contenders: list[Contender] = [P2pdist()]
                if case.rival and not args.no_rival:
                    contenders += [Aria2(), Libtorrent()]
                for contender in contenders:
                    run = measured(case, contender, image)
                    runs[case.name, contender.name].append(run)
                    print(_line(run, case), flush=True)
            shutil.rmtree(image.layout)
        if not args.case or mirror.NAME in args.case:
            mirrored = mirror.measured(Path(work), MIRROR_ROUNDS)
            print(mirrored.line(), flush=True)
    figures: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()},
        "python": platform.python_version(),
        "runs": [asdict(run) for each in runs.values() for run in each],
    }
    if not args.no_rival:
        figures["rivals"] = versions()
    targets = _targets(chosen, runs)
    if mirrored is not None:
        figures[mirror.NAME] = asdict(mirrored)
        targets += mirrored.targets()
    met = publish(targets, figures, OUT)
    ratios = {
        at: [run.ratio for run in found if run.ratio is not None] for at, found in runs.items()
    }
    written = str(OUT)
    if shown := {at: found for at, found in ratios.items() if found}:
        PICTURE.write_text(bars(shown))
        written += f", {PICTURE}"
    print(f"written: {written}")
    return 0 if met or not args.strict else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*(case.name for case in CASES), mirror.NAME]
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
    limit = "" if run.ratio is None else f" = {run.ratio:.2f} x {case.limit_s:.1f} s"
    return (
        f"{case.name:18} {run.contender:10} {run.seconds:6.1f} s{limit},{copies}{gap} "
        f"{run.cpu_s_per_gb:.1f} CPU-s/GB, {run.peak_mb:.0f} MB, "
        f"{run.foreign_cores:.1f} foreign cores{trouble}"
    )


def _targets(chosen: list[Case], runs: dict[tuple[str, str], list[Run]]) -> list[Target]:
    targets = []
    for case in chosen:
        ours = runs[case.name, P2pdist.name]
        targets += _case_targets(case, ours, runs.get((case.beside or "", P2pdist.name)))
        if case.name == "cold_8x100":
            if theirs := runs.get((case.name, Aria2.name)):
                time_ratio = _median_s(ours) / _median_s(theirs)
                targets += [
                    Target("swarm.time_vs_aria2", time_ratio, "<=", 0.85),
                    Target("swarm.cpu_vs_aria2_100mbit", _cpu_ratio(ours, theirs), "<=", 1.0),
                ]
            if len(ours) >= SPREAD_ROUNDS:
                spread = max(r.seconds for r in ours) / min(r.seconds for r in ours)
                targets.append(Target("swarm.spread", spread, "<=", 1.15))
        if case.name == LOOPBACK and (theirs := runs.get((case.name, Aria2.name))):
            speed_ratio = _median_s(theirs) / _median_s(ours)
            targets += [
                Target("swarm.cpu_vs_aria2_loopback", _cpu_ratio(ours, theirs), "<=", 0.9),
                Target("swarm.loopback_gb_per_s_vs_aria2", speed_ratio, ">=", 1.4),
            ]
    gaps = [run.gap_s for each in runs.values() for run in each if run.gap_s is not None]
    if gaps:
        targets.append(Target("swarm.longest_gap_s", max(gaps), "<=", 2.0))
    return targets


def _case_targets(case: Case, ours: list[Run], beside: list[Run] | None) -> list[Target]:
    targets = []
    if case.ratio_max is not None and case.beside is None:
        ratio = statistics.median(run.ratio for run in ours if run.ratio is not None)
        targets.append(Target(f"swarm.{case.name}.ratio", ratio, "<=", case.ratio_max))
    if case.ratio_max is not None and beside:
        ratio = _median_s(ours) / _median_s(beside)
        targets.append(Target(f"swarm.{case.name}.vs_{case.beside}", ratio, "<=", case.ratio_max))
    if case.copies is not None:
        name, copies_max = case.copies
        copies = statistics.median(run.proxy_copies or 0.0 for run in ours)
        targets.append(Target(f"swarm.{name}", copies, "<=", copies_max))
    return targets


def _cpu_ratio(ours: list[Run], theirs: list[Run]) -> float:
    cpu, rival_cpu = (statistics.median(r.cpu_s_per_gb for r in runs) for runs in (ours, theirs))
    return cpu / rival_cpu


def _median_s(runs: list[Run]) -> float:
    return statistics.median(run.seconds for run in runs)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"bench.swarm: {error}")
