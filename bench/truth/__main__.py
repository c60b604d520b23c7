"""Hold the simulator against the truth: real daemons on limited links, and the same simulated.

    python -m bench.truth                     every case, two rounds (10 minutes)
    python -m bench.truth --case warm --rounds 5
    python -m bench.truth --predict 12        only what the simulator says, at 12 CPU-s/GB

15 hosts, each a network namespace behind a token bucket of 100 Mbit/s, get 200 MiB at once: through
a proxy that has nothing yet (`cold`), that has the image (`warm`), and the latter with the tracker
killed on the way (`tracker_killed`). Two more cases have half of the rate and the size, as on few
cores the others measure the cores: a byte costs the same in the simulation (all its processes,
those that pull too, as measured in the same run). Where all cores were busy that alone makes both
agree.

Beside each median of the rounds stands what `bench.sim` says of the same hosts, links, cores and
image (median of as many seeds). The error is the larger one of those of the median host and of the
last one. Needs root, network namespaces and docker-registry (`make bench-truth` installs it).
Writes `build/bench-truth.json`; prints TARGET lines.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.swarm.cases import Case
from bench.swarm.contenders import P2pdist
from bench.swarm.images import make_image
from bench.swarm.runs import Run, measured
from bench.targets import publish
from bench.truth.cases import HALF, WHOLE, Ends, ends, error, predicted
from p2pdist.demo.report import Target
from tests.e2e.harness.processes import LabError

OUT: Final = Path("build/bench-truth.json")
ERROR_MAX: Final = 0.10


def main() -> int:
    args = _parse()
    chosen = [case for case in (*WHOLE, *HALF) if not args.case or case.name in args.case]
    if args.predict is not None:
        for case in chosen:
            print(f"{case.name:15} simulated {_told(_simulated(case, args.predict, 1), case)}")
        return 0
    runs = _measure(chosen, args.rounds)
    said, errors = {}, {}
    for case in chosen:
        found = _middle([ends(run.each_s) for run in runs[case.name]])
        cpu_s_per_gb = statistics.median(_cpu_s_per_gb(run, case) for run in runs[case.name])
        said[case.name] = _simulated(case, cpu_s_per_gb, args.rounds)
        errors[case.name] = error(found, said[case.name])
        print(f"{case.name:15} measured {_told(found, case)}, {cpu_s_per_gb:.1f} CPU-s/GB")
        print(f"{'':15} simulated {_told(said[case.name], case)}, off {errors[case.name]:.3f}")
    figures: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()},
        "python": platform.python_version(),
        "runs": {name: [asdict(run) for run in each] for name, each in runs.items()},
        "simulated": {name: asdict(each) for name, each in said.items()},
        "errors": errors,
    }
    targets = [
        Target(name, max(errors[case.name] for case in cases), "<=", ERROR_MAX)
        for name, group in (("sim.truth_error", WHOLE), ("sim.truth_error_half", HALF))
        if (cases := [case for case in group if case in chosen])
    ]
    publish(targets, figures, OUT)
    print(f"written: {OUT}")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [case.name for case in (*WHOLE, *HALF)]
    parser.add_argument("--case", action="append", choices=names, help="only this one; repeatable")
    parser.add_argument("--rounds", type=int, default=2, help="real runs of each case")
    parser.add_argument("--predict", type=float, metavar="CPU_S_PER_GB", help="only simulate")
    return parser.parse_args()


def _measure(chosen: list[Case], rounds: int) -> dict[str, list[Run]]:
    """Raises LabError."""
    runs: dict[str, list[Run]] = {case.name: [] for case in chosen}
    with tempfile.TemporaryDirectory(prefix="p2pdist-truth-") as work:
        images = {
            sizes: make_image(sizes, Path(work) / f"image-{number}")
            for number, sizes in enumerate({case.layers_mib for case in chosen})
        }
        for _ in range(rounds):
            for case in chosen:
                run = measured(case, P2pdist(), images[case.layers_mib])
                runs[case.name].append(run)
                print(
                    f"{case.name:15} {run.seconds:5.1f} s, {run.cpu_s_per_gb:.1f} CPU-s/GB, "
                    f"{run.foreign_cores:.1f} foreign cores, {run.trouble}",
                    flush=True,
                )
    return runs


def _cpu_s_per_gb(run: Run, case: Case) -> float:
    """Of daemons, clients, and whatever else ran."""
    return run.cpu_s_per_gb + run.foreign_cores * run.seconds / (case.size_bytes * case.hosts / 1e9)


def _simulated(case: Case, cpu_s_per_gb: float, seeds: int) -> Ends:
    each = [predicted(case, cpu_s_per_gb, seed) for seed in range(1, seeds + 1)]
    return _middle([ends(took) for took in each])


def _middle(found: list[Ends]) -> Ends:
    return Ends(
        statistics.median(each.p50_s for each in found),
        statistics.median(each.last_s for each in found),
    )


def _told(found: Ends, case: Case) -> str:
    assert case.limit_s is not None
    p50, last = found.p50_s / case.limit_s, found.last_s / case.limit_s
    return f"p50 {found.p50_s:.2f} s ({p50:.3f}), last {found.last_s:.2f} s ({last:.3f})"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as broken:
        sys.exit(f"bench.truth: {broken}")
