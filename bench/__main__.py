"""Run the benchmarks; print figures and TARGET lines, write `build/bench.json`.

    python -m bench              all of them
    python -m bench micro        the exchange alone; also: mirror, clients, faults

`clients` and `faults` run the end-to-end tests that take these figures (root, Debian packages). As
root the others run in a network namespace of their own with the reno congestion control: BBR, where
it is the default, paces loopback and costs three times the CPU (2.1 against 9.1 GB/s for nginx).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.e2e import noted, run_tests
from bench.targets import publish
from p2pdist.demo.report import Target
from tests.faults.records import read_all
from tests.faults.table import ROWS_TARGET, passed_rows

# What the data-plane measurements promise for receiving, BLAKE3, writing and sending together
# (0.76 to 0.93 CPU-s/GB for pairs of raw prototypes).
EXCHANGE_CPU_S_PER_GB_MAX: Final = 1.0

BUILD: Final = Path("build")
CONGESTION_CONTROL: Final = Path("/proc/sys/net/ipv4/tcp_congestion_control")
_SCRIPT: Final = f'ip link set lo up && echo reno > {CONGESTION_CONTROL} && exec "$0" "$@"'
_FIGURES: Final = "P2PDIST_BENCH_FIGURES"

Figures = dict[str, Any]


def _micro() -> Figures:
    from bench.micro import exchange

    costs = exchange.measure()
    link, sealed, floor = costs.exchange, costs.sealed, costs.floor
    print(f"exchange: {link.cpu_s_per_gb:.2f} CPU-s/GB, {link.gb_per_s:.2f} GB/s")
    print(f"sealed:   {sealed.cpu_s_per_gb:.2f} CPU-s/GB, {sealed.gb_per_s:.2f} GB/s")
    print(
        f"the link alone: {costs.link_clear.cpu_s_per_gb:.2f} CPU-s/GB, "
        f"sealed {costs.link_sealed.cpu_s_per_gb:.2f}"
    )
    print(f"floor:    {floor.cpu_s_per_gb:.2f} CPU-s/GB, {floor.gb_per_s:.2f} GB/s")
    print(f"ratio to the floor: {link.cpu_s_per_gb / floor.cpu_s_per_gb:.2f}")
    return asdict(costs)


def _mirror() -> Figures:
    from bench.mirror import streaming

    streamed = streaming.measure()
    print(
        f"streaming: 256 MiB at 20 MB/s in {streamed.seconds:.2f} s, "
        f"{streamed.cpu_s_per_gb:.1f} CPU-s/GB in three daemons, {streamed.peak_mb:.0f} MB"
    )
    return {"mirror": asdict(streamed)}


def _clients() -> Figures:
    """What the end-to-end tests of clients and datacenters saw."""
    names = ("tests/e2e/test_five_clients.py", "tests/e2e/test_datacenters.py")
    run_tests(*names)
    return dict(noted(BUILD / "figures"))


def _faults() -> Figures:
    run_tests("-m", "faults", "--ignore=tests/compose", "--ignore=tests/first_hour")
    run_tests("tests/faults", "tests/e2e/faults")
    subprocess.run([sys.executable, "-m", "tests.faults.table"], check=False)
    return {"faults.rows_passed": len(passed_rows(read_all()))}


SECTIONS: Final[dict[str, Callable[[], Figures]]] = {
    "micro": _micro,
    "mirror": _mirror,
    "clients": _clients,
    "faults": _faults,
}
IN_NAMESPACE: Final = ("micro", "mirror")


def _run(name: str) -> Figures:
    """Run one section, in a namespace of its own where that matters and root allows it."""
    if name not in IN_NAMESPACE or os.geteuid() != 0 or _FIGURES in os.environ:
        return SECTIONS[name]()
    path = BUILD / f"bench-{name}.json"
    argv = ["unshare", "--net", "sh", "-c", _SCRIPT, sys.executable, "-m", "bench", name]
    subprocess.run(argv, env={**os.environ, _FIGURES: str(path)}, check=True)
    found: Figures = json.loads(path.read_text())
    return found


def _targets(figures: Figures) -> list[Target]:
    """The targets of the sections that ran."""
    found = []
    if "exchange" in figures:
        cost = figures["exchange"]["cpu_s_per_gb"]
        found.append(Target("exchange.cpu_s_per_gb", cost, "<=", EXCHANGE_CPU_S_PER_GB_MAX))
    if "mirror" in figures:
        mirror = figures["mirror"]
        found.append(Target("mirror.first_byte_ms", mirror["first_byte_ms"], "<=", 100))
        found.append(Target("mirror.stream_end_ratio", mirror["end_ratio"], "<=", 1.05))
    bounds = {
        "mirror.five_clients_upstream_ratio": 1.05,
        "mirror.five_clients_proxy_egress_ratio": 1.5,
        "dc.cross_ratio": 1.05,
    }
    found += [
        Target(name, figures[name], "<=", goal) for name, goal in bounds.items() if name in figures
    ]
    if "faults.rows_passed" in figures:
        found.append(Target("faults.rows_passed", figures["faults.rows_passed"], ">=", ROWS_TARGET))
    return found


def main() -> int:
    names = sys.argv[1:] or list(SECTIONS)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
        return 2
    BUILD.mkdir(exist_ok=True)
    print(
        f"machine: {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"{CONGESTION_CONTROL.read_text().strip()}"
    )
    figures: Figures = {}
    for name in names:
        figures |= _run(name)
    if (path := os.environ.get(_FIGURES)) is not None:
        Path(path).write_text(json.dumps(figures))
        return 0
    return 0 if publish(_targets(figures), figures, BUILD / "bench.json") else 1


if __name__ == "__main__":
    sys.exit(main())
