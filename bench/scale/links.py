"""What the links of a proxy cost, and what the one beyond its limit is told."""

from __future__ import annotations

import asyncio
import statistics
from typing import Any, Final

from bench.scale.lab import running
from p2pdist.demo.report import Target

LINKS: Final = 1_000
ROUNDS: Final = 5
LINKS_MAX: Final = 10_000
BEYOND: Final = 500
IDLE_S: Final = 10.0


def measure() -> tuple[dict[str, Any], list[Target]]:
    figures = asyncio.run(_cold_reads()) | asyncio.run(_limit())
    return figures, [
        Target("scale.cold_1000_links_ratio", figures["cold_1000_links_ratio"], "<=", 1.2),
        Target("scale.cold_1000_listeners_ratio", figures["cold_1000_listeners_ratio"], "<=", 2),
        Target("scale.proxy_links", figures["proxy_links"], ">=", LINKS_MAX),
        Target("scale.refusals_understood", figures["refusals_understood"], ">=", BEYOND),
    ]


async def _cold_reads() -> dict[str, Any]:
    """The same read without links, with idle ones, and with links that all want the blob, in turn;
    each figure is the median over the rounds."""
    reads: dict[str, list[tuple[float, float]]] = {"none": [], "idle": [], "listening": []}
    async with running(links_max=LINKS_MAX) as bench:
        await bench.cold_read()
        for _ in range(ROUNDS):
            reads["none"].append(await bench.cold_read())
            await bench.hosts.order(f"dial {LINKS}")
            reads["idle"].append(await bench.cold_read())
            reads["listening"].append(await bench.cold_read(listened_to=True))
            state = await bench.hosts.order("count")
            if state["live"] != LINKS:
                raise SystemExit(f"the proxy lost links: {state}")
            await bench.hosts.order("drop")
    figures: dict[str, Any] = {}
    for kind, runs in reads.items():
        figures[f"cold_{kind}_s"] = statistics.median(seconds for seconds, _ in runs)
        figures[f"cold_{kind}_cpu_s"] = statistics.median(cpu_s for _, cpu_s in runs)
    none_s = figures["cold_none_s"]
    figures["cold_1000_links_ratio"] = figures["cold_idle_s"] / none_s
    figures["cold_1000_listeners_ratio"] = figures["cold_listening_s"] / none_s
    figures["cold_1000_links_cpu_ratio"] = figures["cold_idle_cpu_s"] / figures["cold_none_cpu_s"]
    return figures


async def _limit() -> dict[str, Any]:
    """Fill a proxy up, and send more hosts there."""
    async with running(links_max=LINKS_MAX) as bench:
        await bench.cold_read()
        cpu_s, rss_kb = bench.cpu_s, bench.rss_kb
        held = await bench.hosts.order(f"dial {LINKS_MAX}")
        link_us = (bench.cpu_s - cpu_s) / LINKS_MAX * 1e6
        link_kb = (bench.rss_kb - rss_kb) / LINKS_MAX
        cpu_s = bench.cpu_s
        beyond = await bench.hosts.order(f"dial {BEYOND}")
        refusal_us = (bench.cpu_s - cpu_s) / BEYOND * 1e6
        cpu_s = bench.cpu_s
        await asyncio.sleep(IDLE_S)
        idle_cores = (bench.cpu_s - cpu_s) / IDLE_S
        still = await bench.hosts.order("count")
    return {
        "proxy_links": min(held["live"], still["live"]),
        "refusals_understood": beyond["answers"].get("full", 0),
        "link_us": link_us,
        "link_kb": link_kb,
        "refusal_us": refusal_us,
        "idle_cores": idle_cores,
    }
