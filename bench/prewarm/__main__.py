"""Measure prewarm; print figures and TARGET lines, write `build/bench-prewarm.json`.

python -m bench.prewarm                       all of it
python -m bench.prewarm fleet                 10,000 simulated hosts against a real tracker
python -m bench.prewarm kill                  2,000 of them, the tracker killed in mid-job
python -m bench.prewarm links                 real daemons in network namespaces (root)
python -m bench.prewarm fleet --hosts 500     fewer
python -m bench.prewarm --profile out.pstats  with the tracker under cProfile: its figures double
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.prewarm import links
from bench.prewarm.release import run
from bench.targets import publish
from p2pdist.demo.report import Target

HOSTS: Final = 10_000
# The project's bound for what may hold up an event loop.
LAG_MAX_S: Final = 0.010
PARTS: Final = ("fleet", "kill", "links")
EXIT_PARTLY: Final = 7
KILL_HOSTS: Final = 2_000


def _fleet_targets(figures: dict[str, Any]) -> list[Target]:
    return [
        Target("prewarm.status_latency_s", figures["status_latency_p99_s"], "<=", 2),
        Target("prewarm.false_ready", figures["false_ready"], "<=", 0),
        Target("prewarm.fleet_lie_seen_s", figures["lie_seen_max_s"], "<=", 5),
        Target("prewarm.fleet_wrong_verdicts", _wrong_verdicts(figures), "<=", 0),
        Target("prewarm.fleet_loop_lag_s", figures["lag_max_s"], "<=", LAG_MAX_S),
    ]


def _wrong_verdicts(figures: dict[str, Any]) -> int:
    """Hosts that the job or the command got wrong at the end, and an exit code that is."""
    wrong: int = figures["wrongly_not_ready"] + figures["wrongly_ready_at_the_end"]
    wrong += figures["command_exit"] != EXIT_PARTLY
    return wrong + (not figures["command_names_right_hosts"])


def _show(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        print(f"{name:<28} {f'{value:.4g}' if isinstance(value, float) else value}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.prewarm")
    parser.add_argument("parts", nargs="*", metavar="fleet|kill|links")
    parser.add_argument("--hosts", type=int, default=HOSTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", type=Path)
    options = parser.parse_args()
    parts = options.parts or PARTS
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    print(
        f"machine: {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"{options.hosts} hosts, seed {options.seed}"
    )
    figures: dict[str, Any] = {}
    targets: list[Target] = []
    lacking: list[str] = []
    if "fleet" in parts:
        found = uvloop.run(run(options.hosts, seed=options.seed, profile=options.profile))
        _show(found)
        figures |= found
        targets += _fleet_targets(found)
    if "kill" in parts:
        found = uvloop.run(run(min(options.hosts, KILL_HOSTS), seed=options.seed, kill=True))
        _show(found)
        figures["kill"] = found
        wrong = _wrong_verdicts(found) + found["false_ready"]
        targets.append(Target("prewarm.fleet_kill_wrong_verdicts", wrong, "<=", 0))
    if "links" in parts:
        found = links.measure()
        _show(found)
        figures |= found
        reached, lacking = links.targets(found)
        targets += reached
    met = publish(targets, figures, Path("build/bench-prewarm.json"))
    for name in lacking:
        print(f"nothing was measured for {name}")
    return 0 if met and not lacking else 1


if __name__ == "__main__":
    raise SystemExit(main())
