"""What the neighbours of a peer cost: it fetches from a proxy what it offers to all of them.

Each neighbour wants the blob, hears what the peer has, and says that it has it, too, as in a full
swarm; the bytes come from the proxy at 40 MB/s.
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Any, Final

from bench.scale.lab import LAYER_BYTES, running
from p2pdist.demo.report import Target

FEW: Final = 4
MANY: Final = 100
ROUNDS: Final = 5


def measure() -> tuple[dict[str, Any], list[Target]]:
    figures = asyncio.run(_reads())
    ratio = figures["cpu_100_vs_4_neighbours"]
    return figures, [Target("scale.cpu_100_vs_4_neighbours", ratio, "<=", 1.5)]


async def _reads() -> dict[str, Any]:
    """Few and many neighbours in turn; medians over the rounds."""
    cpu_s: dict[int, list[float]] = {FEW: [], MANY: []}
    async with running("peer", upload_rate="40MB/s") as bench:
        await bench.cold_read()
        for _ in range(ROUNDS):
            for count in (FEW, MANY):
                await bench.hosts.order(f"dial {count}")
                await bench.hosts.order("echo")
                cpu_s[count].append((await bench.cold_read(listened_to=True))[1])
                state = await bench.hosts.order("count")
                if state["live"] != count:
                    raise SystemExit(f"the peer lost neighbours: {state}")
                await bench.hosts.order("drop")
    few, many = statistics.median(cpu_s[FEW]), statistics.median(cpu_s[MANY])
    return {
        "cpu_s_per_gb_4": few / LAYER_BYTES * 1e9,
        "cpu_s_per_gb_100": many / LAYER_BYTES * 1e9,
        "cpu_100_vs_4_neighbours": many / few,
    }
