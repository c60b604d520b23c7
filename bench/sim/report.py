"""What came of a run: how long hosts took beside the limit, what left the seeds, what it cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.sim.fleet import Fleet
from p2pdist.demo.report import Target

# Scenario -> what it has to reach; ratios are to the limit, each host from its own start.
GOALS: Final[dict[str, dict[str, float]]] = {
    "kraken": {"p50": 1.05, "p99": 1.08, "p999": 1.12, "duplicates": 0.01},
    "tenk": {"p50": 1.06, "p99": 1.12, "p999": 1.18},
    "warm": {"p50": 1.10, "p99": 1.20, "p999": 1.25, "seed_copies": 1.2},
    "model": {"p50": 1.05, "p99": 1.08},
    "faults": {"p50": 1.20, "p99": 1.35, "wrong_accepted": 0, "duplicates": 0.02},
    "flash": {"p50": 1.15, "p99": 1.30, "upstream": 1.05},
    "cold": {"p50": 1.03, "p99": 1.06, "p999": 1.10},
    "wan": {"p50": 1.10, "p99": 1.20, "p999": 1.25, "cross_dc": 1.05, "upstream": 1.02},
    "readers": {"reader_stall_s": 0.25, "bulk_p99": 1.15},
}


@dataclass(frozen=True)
class Outcome:
    """Of one run; `figures` are what targets and the JSON have."""

    name: str
    finished: bool
    took: tuple[float, ...]
    """Seconds from each healthy host's start to its end, ascending."""
    limit_s: float
    figures: dict[str, Any]


def outcome(name: str, fleet: Fleet, *, finished: bool, cpu_s: float, peak_mb: float) -> Outcome:
    """Read a fleet that has run."""
    healthy = [pull for pull in fleet.pulls if pull.healthy]
    bulk = [pull for pull in healthy if not pull.wave.reads_mb_per_s]
    limit_s = fleet.limit_s()
    took = sorted(pull.took_s for pull in healthy if pull.took_s is not None)
    size, hosts = fleet.scenario.size_bytes, fleet.hosts
    received = sum(host.received_bytes for host in hosts)
    chunks = received / fleet.blobs[0].geometry.chunk_size_bytes
    seeds = sum(seed.card.up.bytes_total for seed in fleet.seeds)
    twice = sum(host.wasted_bytes + host.card.cut_bytes for host in hosts)
    figures = {
        "hosts": len(fleet.pulls),
        "size_mb": size / 1e6,
        "chunks": sum(blob.geometry.chunk_count for blob in fleet.blobs),
        "limit_s": limit_s,
        "floor": floor_ratio(fleet),
        "p50": at(took, 0.50) / limit_s,
        "p99": at(took, 0.99) / limit_s,
        "p999": at(took, 0.999) / limit_s,
        "bulk_p99": at(sorted(p.took_s for p in bulk if p.took_s is not None), 0.99) / limit_s,
        "reader_stall_s": max(p.stalled_s for p in healthy),
        "seed_copies": seeds / size,
        "upstream": fleet.upstream.lane.bytes_total / size if fleet.upstream else 0.0,
        "cross_dc": max(home.into.bytes_total for home in fleet.datacenters) / size,
        "duplicates": twice / max(1, received),
        "wrong_accepted": sum(host.wrong_accepted for host in hosts),
        "events": fleet.clock.events,
        "cpu_s": cpu_s,
        "us_per_chunk": cpu_s / max(1.0, chunks) * 1e6,
        "peak_mb": peak_mb,
        "trace": fleet.trace.hexdigest(),
    }
    return Outcome(name, finished, tuple(took), limit_s, figures)


def at(ascending: Sequence[float], share: float) -> float:
    """The value that so much of them reach; infinity of none."""
    if not ascending:
        return math.inf
    return ascending[min(len(ascending) - 1, math.ceil(share * len(ascending)) - 1)]


def floor_ratio(fleet: Fleet) -> float:
    """(K + log2 N) / K: what K chunks cost at least to reach N hosts, one after the other."""
    chunks = sum(blob.geometry.chunk_count for blob in fleet.blobs)
    return (chunks + math.log2(max(2, len(fleet.pulls)))) / chunks


def targets(found: Outcome) -> list[Target]:
    """What the scenario has to reach; a run that did not finish reached nothing."""
    return [
        Target(
            f"sim.{found.name}.{key}",
            found.figures[key] if found.finished else math.inf,
            "<=",
            goal,
        )
        for key, goal in GOALS.get(found.name, {}).items()
    ]


def line(found: Outcome) -> str:
    """One row of the table."""
    f = found.figures
    ends = "" if found.finished else "  NOT FINISHED"
    return (
        f"{found.name:9} {f['hosts']:6} hosts {f['size_mb']:8.0f} MB {f['limit_s']:7.2f} s"
        f"  p50 {f['p50']:.3f}  p99 {f['p99']:.3f}  p99.9 {f['p999']:.3f}  floor {f['floor']:.3f}"
        f"  copies {f['seed_copies']:.2f}  twice {f['duplicates']:.4f}"
        f"  {f['us_per_chunk']:.0f} us/chunk  {f['cpu_s']:.0f} CPU-s  {f['peak_mb']:.0f} MB{ends}"
    )


def curves(outcomes: Sequence[Outcome]) -> str:
    """Completion over time as SVG: for each run the share of hosts, over multiples of the limit."""
    width, height, left, top = 720, 60 + 34 * 8, 60, 30
    across, down, most = width - left - 150, height - top - 40, 2.0
    colours = ("#3266a8", "#c2571a", "#2d8a57", "#8b3f9e", "#a8324c", "#6b6b1f", "#1f7f8b")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]

    def x(ratio: float) -> float:
        return left + min(ratio, most) / most * across

    for step in range(5):
        ratio = step * most / 4
        parts.append(
            f'<line x1="{x(ratio):.1f}" y1="{top}" x2="{x(ratio):.1f}" y2="{top + down}" '
            f'stroke="{"#333" if ratio == 1.0 else "#ddd"}"/>'
            f'<text x="{x(ratio):.1f}" y="{top + down + 16}" text-anchor="middle">{ratio:g}</text>'
        )
    for share in (0.0, 0.5, 1.0):
        y = top + (1 - share) * down
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for number, found in enumerate(outcomes):
        colour, count = colours[number % len(colours)], len(found.took)
        points = " ".join(
            f"{x(took / found.limit_s):.1f},{top + (1 - (i + 1) / count) * down:.1f}"
            for i, took in enumerate(found.took)
        )
        y = top + 14 + 18 * number
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(f'<text x="{width - 140}" y="{y}" fill="{colour}">{found.name}</text>')
    parts.append(
        f'<text x="{left + across / 2}" y="{height - 6}" text-anchor="middle">'
        "time of a host over the limit (the dark line)</text></svg>"
    )
    return "\n".join(parts) + "\n"
