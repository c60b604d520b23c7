"""The demonstration: six hosts in two datacenters pull one image at the same time."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from p2pdist.demo.cluster import DATACENTERS, UPSTREAM, Daemon, DemoCluster, running_cluster
from p2pdist.demo.host import HostPull
from p2pdist.demo.image import DemoImage, make_image
from p2pdist.demo.processes import Process, fetch_json
from p2pdist.demo.progress import showing_progress
from p2pdist.demo.report import (
    HostRow,
    ProxyRow,
    Target,
    Traffic,
    processes_table,
    summary,
    table,
    write_json,
)
from p2pdist.errors import ConfigError
from p2pdist.process.clock import unix_s

# The image, the registry's copy, six stores, two proxies' stores, and some air.
COPIES: Final = 12
PULL_TIMEOUT_S: Final = 100.0
# What a kill takes away, by role.
_WITHOUT: Final = {
    "registry": "what was pulled once is served all the same",
    "tracker": "links stay and transfers go on; new hosts wait for it to find each other",
    "proxy": "what the peers hold is served all the same; new images of its datacenter wait for it",
    "peer": "its host pulls from the registry; the others go on without it",
}


@dataclass(frozen=True, slots=True)
class DemoOptions:
    size_bytes: int
    keep: bool
    json_path: Path


async def run_demo(options: DemoOptions) -> bool:
    """Run it; return whether every target was met. Raises ConfigError, P2pdistError."""
    started_s = float(os.environ.get("P2PDIST_DEMO_STARTED") or unix_s())
    directory = Path(tempfile.mkdtemp(prefix="p2pdist-demo-"))
    try:
        _check_room(directory, options.size_bytes)
        _say(f"making an image of {options.size_bytes / 1e6:.0f} MB")
        image = await asyncio.to_thread(make_image, directory / "blobs", options.size_bytes)
        timeout = aiohttp.ClientTimeout(total=PULL_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            _say("starting a registry, and in each of 2 datacenters a tracker, a proxy, 3 peers")
            async with running_cluster(directory, image, session) as cluster:
                ok = await _measure(cluster, image, session, options, started_s)
                if options.keep:
                    await _keep(cluster, directory)
        return ok
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _check_room(directory: Path, size_bytes: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < COPIES * size_bytes:
        raise ConfigError(
            f"{directory.parent} has {free / 1e9:.1f} GB free, the demonstration needs "
            f"{COPIES * size_bytes / 1e9:.1f} GB: set TMPDIR to a larger disk, or --size-mb"
        )


async def _measure(
    cluster: DemoCluster,
    image: DemoImage,
    session: aiohttp.ClientSession,
    options: DemoOptions,
    started_s: float,
) -> bool:
    pulls = [HostPull(peer, image.size_bytes) for peer in cluster.peers]
    _say(f"six hosts pull {UPSTREAM}/shop/app:1 ({image.size_bytes / 1e6:.1f} MB) at once")
    async with showing_progress(pulls), asyncio.TaskGroup() as hosts:
        for pull in pulls:
            hosts.create_task(pull.run(session, image.manifest_digest))
    status = {d.name: await _status(session, d) for d in cluster.daemons}
    registry = await fetch_json(session, f"http://127.0.0.1:{cluster.registry_port}/stats")
    rows = [_row(pull, status[pull.peer.name]) for pull in pulls]
    proxies = [cluster.one("proxy", dc).name for dc in DATACENTERS]
    copied = {name: _traffic(status[name]) for name in proxies}
    proxy_rows = [ProxyRow(name, traffic) for name, traffic in copied.items()]
    read = registry["payload_bytes"]
    crossed = sum(part.wan for part in [row.traffic for row in rows] + list(copied.values()))
    egress = max(status[name]["bytes_sent"]["peer"] for name in copied)
    size = image.size_bytes
    targets = _targets(rows, read / size, crossed / size, egress / size, unix_s() - started_s)
    print("\n".join(table(rows, proxy_rows)))
    print()
    done = sum(row.verified for row in rows)
    print(summary(size, done, read, crossed))
    print()
    for target in targets:
        print(target.line())
    facts = {"image_bytes": size, "registry": registry}
    write_json(options.json_path, rows, proxy_rows, targets, facts)
    return all(target.ok for target in targets)


async def _status(session: aiohttp.ClientSession, daemon: Daemon) -> dict[str, Any]:
    return await fetch_json(session, f"{daemon.admin_url}/api/v1/status")


def _row(pull: HostPull, status: dict[str, Any]) -> HostRow:
    return HostRow(pull.peer.name, pull.seconds, pull.verified, pull.error, _traffic(status))


def _traffic(status: dict[str, Any]) -> Traffic:
    got = status["bytes_received"]
    return Traffic(
        got["rack"] + got["dc"],
        got["proxy"],
        got["wan"],
        got["upstream"],
        sum(status["bytes_sent"].values()),
    )


def _targets(
    rows: list[HostRow], read: float, crossed: float, egress: float, elapsed_s: float
) -> list[Target]:
    """The first three are in images: what the registry sent, what crossed, what the busier proxy
    sent to its own datacenter."""
    return [
        Target("demo.hosts_verified", sum(row.verified for row in rows), ">=", len(rows)),
        Target("demo.upstream_ratio", read, "<=", 1.05),
        Target("demo.cross_dc_ratio", crossed, "<=", 1.05),
        Target("demo.proxy_egress_ratio", egress, "<=", 2.0),
        Target("demo.setup_and_run_s", elapsed_s, "<=", 120),
    ]


async def _keep(cluster: DemoCluster, directory: Path) -> None:
    """Leave everything running, say what to try, and who goes, until Ctrl-C."""
    print(f"\nrunning until Ctrl-C; configuration and logs are in {directory}\n")
    print("\n".join(processes_table(cluster.processes)))
    peer = cluster.peers[0]
    command = Path(sys.executable).with_name("p2pdist")
    print("\ntry:")
    print(f"  curl '{peer.service_url}/v2/shop/app/manifests/1?ns={UPSTREAM}'")
    print(f"  {_pull_command(peer)}")
    print(f"  {command} status --admin {peer.admin_url}")
    print(f"  curl {peer.admin_url}/metrics")
    print("  kill -9 PID of any process above: what is lost then, and what is not, is said here")
    print(flush=True)
    async with asyncio.TaskGroup() as watching:
        for process in cluster.processes:
            watching.create_task(_tell_its_end(cluster, process))


async def _tell_its_end(cluster: DemoCluster, process: Process) -> None:
    await process.process.wait()
    role = process.name.removeprefix("dc1-").removeprefix("dc2-").rstrip("0123456789")
    _say(f"{process.name} (pid {process.process.pid}) has gone: {_WITHOUT[role]}")
    gone = {p.name for p in cluster.processes if p.process.returncode is not None}
    if alive := [peer for peer in cluster.peers if peer.name not in gone]:
        _say(f"see for yourself: {_pull_command(alive[0])}")


def _pull_command(peer: Daemon) -> str:
    command = Path(sys.executable).with_name("p2pdist")
    return f"{command} pull {UPSTREAM}/shop/app:1 --endpoint {peer.service_url}"


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
