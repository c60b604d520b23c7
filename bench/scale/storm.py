"""All hosts at once after a tracker's fall: how long until each of them is back."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from random import Random
from typing import Any, Final

from bench.prewarm.tracker_process import running_tracker
from bench.scale.fleet import Fleet, allowed
from bench.scale.quota import core_share

CONNECTS_PER_S: Final = 400
SETTLE_S: Final = 8.0
"""The inventories of the first connections are in, and the hosts' backoffs are as in quiet days."""
END_S: Final = 300.0


async def storm(hosts: int, share: float) -> dict[str, Any]:
    """Kill the tracker of `hosts` hosts and start it again with `share` of a core."""
    count, loop = allowed(hosts), asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as directory, core_share(share) as limit:
        async with running_tracker(Path(directory)) as tracker:
            fleet = Fleet("127.0.0.1", tracker.control_port, tracker.secret, Random(1))
            fleet.fill(count)
            try:
                await fleet.connect(CONNECTS_PER_S)
                await asyncio.sleep(SETTLE_S)
                fleet.lost.clear()
                fleet.dials = fleet.refused = fleet.announced = 0
                fleet.lag_max_s = 0.0
                await tracker.kill()
                killed_s = loop.time()
                tracker.limit = limit
                await tracker.start()
                started_s = loop.time()
                figures: dict[str, Any] = {"hosts": count, "core_share": share}
                figures["restart_s"] = started_s - killed_s
                try:
                    async with asyncio.timeout(END_S):
                        await fleet.all_up()
                        figures["all_up_s"] = loop.time() - killed_s
                        figures["tracker_cpu_s"] = tracker.cpu_s()
                        await fleet.all_announced()
                        figures["all_announced_s"] = loop.time() - killed_s
                except TimeoutError:
                    figures.setdefault("all_up_s", END_S)
                figures |= {"up": fleet.up, "dials": fleet.dials, "refused": fleet.refused}
                figures["hosts_lag_max_s"] = fleet.lag_max_s
                figures["lost"] = dict(fleet.lost.most_common(8))
                counters = await tracker.metrics()
                figures["dropped"] = counters["p2pdist_tracker_dropped_total"]
                return figures
            finally:
                await fleet.close()
