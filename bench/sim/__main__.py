"""Simulate whole fleets with the daemons' own cores, and compare with the limit of the network.

    python -m bench.sim                        every scenario, scaled to what takes some minutes
    python -m bench.sim kraken warm --hosts 500 --mib 256
    python -m bench.sim my-scenario.toml --seed 7
    python -m bench.sim --storms 1000          random fleets with random faults, checked throughout
    python -m bench.sim kraken --hosts 20 --trace FILE
    python -m bench.sim replay FILE...         check traces, those of daemons too
    python -m bench.sim --list

Hosts exchange encoded frames and messages over simulated network cards; a tracker's core names
neighbours. One seed has one course of events: `trace` in the figures tells two runs apart. A
scenario that would take more than `--transfers` chunk transfers is scaled down: first its layers,
to 256 chunks, and its rates with them, so that it takes as long; then its hosts. Writes
`build/bench-sim.json` and `build/bench-sim.svg`; prints TARGET lines.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import msgspec

from bench.sim import replay
from bench.sim.fleet import Fleet
from bench.sim.report import Outcome, curves, line, outcome, targets
from bench.sim.scenario import MIB, Scenario, load, names
from bench.sim.storms import weather
from bench.targets import publish
from p2pdist.model.geometry import geometry_for

OUT: Final = Path("build/bench-sim.json")
CURVES: Final = Path("build/bench-sim.svg")
END_S: Final = 3600.0
TRANSFERS: Final = 250_000
CHUNKS_MIN: Final = 256
"""Of one host's image; fewer would show the steps of a pipeline, and not the swarm."""


def main() -> int:
    if sys.argv[1:2] == ["replay"]:
        return replay.main(sys.argv[2:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", metavar="scenario")
    parser.add_argument("--hosts", type=int, help="so many in place of the scenario's")
    parser.add_argument("--mib", type=float, help="layers of so many MiB together")
    parser.add_argument("--transfers", type=int, default=TRANSFERS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checks", action="store_true", help="validate after every event; slow")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="what the hosts hear and say")
    parser.add_argument("--storms", type=int, metavar="N", help="seeds 1 to N, and nothing else")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        for name in names():
            print(f"{name:9} {load(name).about}")
        return 0
    if options.storms:
        return storms(options.storms)
    try:
        chosen = {name: load(name) for name in options.scenarios or names()}
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if options.trace is not None and len(chosen) != 1:
        parser.error("--trace is of one scenario: name it")
    work = [
        (
            name,
            sized(scenario, options.hosts, options.mib, options.transfers),
            options.seed,
            options.checks,
            options.trace,
        )
        for name, scenario in chosen.items()
    ]
    with multiprocessing.Pool(min(2, len(work)), maxtasksperchild=1) as pool:
        found = list(pool.imap(run, work, chunksize=1))
    for each in found:
        print(line(each))
    for name, scenario, *_ in work:
        if scenario != chosen[name]:
            print(f"{name}: {scaling(chosen[name], scenario)}; its targets are those of the whole")
    figures = {
        "python": platform.python_version(),
        "commit": _commit(),
        "seed": options.seed,
        "scenarios": {
            each.name: {**each.figures, "settings": msgspec.to_builtins(scenario)}
            for each, (_, scenario, *_) in zip(found, work, strict=True)
        },
    }
    wanted = [target for each in found for target in targets(each)]
    publish(wanted, figures, OUT)
    CURVES.write_text(curves(found))
    print(f"written: {OUT}, {CURVES}")
    return 0 if all(each.finished for each in found) else 1


def run(work: tuple[str, Scenario, int, bool, Path | None]) -> Outcome:
    """Simulate one scenario in a process of its own."""
    name, scenario, seed, checks, trace = work
    gc.disable()  # everything lives until the end
    began_s = time.process_time()
    with trace.open("wb") if trace is not None else nullcontext() as lines:
        put: Callable[[bytes], object] | None = lines.write if lines is not None else None
        fleet = Fleet(scenario, seed, checks=checks, write=put)
        finished = fleet.run(end_s=END_S)
    cpu_s = time.process_time() - began_s
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return outcome(name, fleet, finished=finished, cpu_s=cpu_s, peak_mb=peak_mb)


def sized(scenario: Scenario, hosts: int | None, mib: float | None, transfers_max: int) -> Scenario:
    """Scale a scenario to what was asked for, and to what can be paid for."""
    if hosts is not None:
        scenario = scenario.scaled(hosts)
    if mib is not None:
        share = mib / sum(scenario.layers)
        scenario = msgspec.structs.replace(scenario, layers=[m * share for m in scenario.layers])
    while scenario.hosts * chunks(scenario) > transfers_max:
        share = transfers_max / (scenario.hosts * chunks(scenario))
        smaller = max(share, CHUNKS_MIN / chunks(scenario))
        if chunks(scenario) <= CHUNKS_MIN * 1.05:
            return scenario.scaled(max(10, int(scenario.hosts * share)))
        scenario = scenario.shrunk(min(0.95, smaller))
    return scenario


def scaling(whole: Scenario, run: Scenario) -> str:
    """Say what was left out."""
    hosts = f"{run.hosts:,} of {whole.hosts:,} hosts"
    size = f"{run.size_bytes / 1e6:,.0f} of {whole.size_bytes / 1e6:,.0f} MB"
    return f"scaled to {hosts}, {size}, rates x {run.host_mbit / whole.host_mbit:.3g}"


def chunks(scenario: Scenario) -> int:
    """Of one host's image."""
    return sum(geometry_for(round(mib * MIB)).chunk_count for mib in scenario.layers)


def storms(count: int) -> int:
    """Print each seed whose storm did harm; return the exit code."""
    with multiprocessing.Pool(2) as pool:
        found = pool.imap(weather, range(1, count + 1), chunksize=4)
        harm = [(seed, what) for seed, what in enumerate(found, start=1) if what is not None]
    for seed, what in harm:
        print(f"seed {seed}: {what}")
    print(f"TARGET sim.storms_with_harm {len(harm)} <= 0 {'ok' if not harm else 'short'}")
    return 1 if harm else 0


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return told.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
