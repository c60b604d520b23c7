"""What connections cost a tracker: memory, pauses of its event loop, the time to stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from pathlib import Path
from random import Random
from typing import Any, Final

from bench.prewarm.tracker_process import running_tracker
from bench.scale.fleet import BEAT_S, BLOBS, Fleet, allowed
from bench.scale.probed_tracker import WRITE_S

CONNECTS_PER_S: Final = 300
WATCHED_S: Final = 2 * BEAT_S


async def costs(hosts: int) -> dict[str, Any]:
    """Connect `hosts`, each with an inventory, and look at them in quiet; then stop the tracker."""
    count, loop = allowed(hosts), asyncio.get_running_loop()
    figures: dict[str, Any] = {"hosts": count, "blobs_per_host": BLOBS}
    with tempfile.TemporaryDirectory() as name:
        probed = Path(name) / "probe.json"
        async with running_tracker(Path(name), probed=probed) as tracker:
            part_cores(tracker.pid)
            os.kill(tracker.pid, signal.SIGUSR1)  # what starting took is no pause of anybody's
            empty_mb = tracker.rss_mb("VmRSS")
            fleet = Fleet("127.0.0.1", tracker.control_port, tracker.secret, Random(1))
            fleet.fill(count)
            try:
                fleet.silent = True
                began_cpu_s = tracker.cpu_s()
                await fleet.connect(CONNECTS_PER_S)
                figures["connect_us"] = 1e6 * (tracker.cpu_s() - began_cpu_s) / count
                idle_mb = tracker.rss_mb("VmRSS")
                figures["kb_per_connection"] = 1024 * (idle_mb - empty_mb) / count
                fleet.silent = False
                fleet.announce_all(BEAT_S)
                await fleet.all_announced()
                await asyncio.sleep(WATCHED_S)
                full_mb = tracker.rss_mb("VmRSS")
                figures["kb_per_host_with_blobs"] = 1024 * (full_mb - empty_mb) / count
                await asyncio.sleep(2 * WRITE_S)
                figures |= json.loads(probed.read_text())
                figures["hosts_lag_max_s"] = fleet.lag_max_s
                fleet.closing = True
                assert tracker.process is not None
                began_s = loop.time()
                os.kill(tracker.pid, signal.SIGTERM)
                await tracker.process.process.wait()
                figures["stop_s"] = loop.time() - began_s
                return figures
            finally:
                await fleet.close()


def part_cores(tracker_pid: int) -> None:
    """The tracker has a core, and its 10,000 hosts here the others: a loop that waits for a core
    that the hosts have is late, too, and no pause of its own."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(tracker_pid, cores[:1])
        os.sched_setaffinity(0, cores[1:])
