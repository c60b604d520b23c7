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
from p2pdist.demo.processes import fetch_json
from p2pdist.demo.progress import showing_progress
from p2pdist.demo.report import HostRow, Target, table, write_json
from p2pdist.errors import ConfigError
from p2pdist.runtime.clock import unix_s

# The image, the registry's copy, six stores, two proxies' stores, and some air.
COPIES: Final = 12
PULL_TIMEOUT_S: Final = 100.0


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
    targets = _targets(cluster, image, rows, status, registry, unix_s() - started_s)
    for line in table(rows):
        print(line)
    print()
    for target in targets:
        print(target.line())
    facts = {"image_bytes": image.size_bytes, "registry": registry}
    write_json(options.json_path, rows, targets, facts)
    return all(target.ok for target in targets)


async def _status(session: aiohttp.ClientSession, daemon: Daemon) -> dict[str, Any]:
    return await fetch_json(session, f"{daemon.admin_url}/api/v1/status")


def _row(pull: HostPull, status: dict[str, Any]) -> HostRow:
    got = status["bytes_received"]
    return HostRow(
        pull.peer.name,
        pull.seconds,
        pull.verified,
        pull.error,
        got["rack"] + got["dc"],
        got["proxy"],
        got["wan"],
        got["upstream"],
    )


def _targets(
    cluster: DemoCluster,
    image: DemoImage,
    rows: list[HostRow],
    status: dict[str, Any],
    registry: dict[str, Any],
    elapsed_s: float,
) -> list[Target]:
    far = cluster.one("proxy", DATACENTERS[1]).name
    crossed = status[far]["bytes_received"]["wan"] + sum(row.wan for row in rows)
    egress = max(status[cluster.one("proxy", dc).name]["bytes_sent"]["peer"] for dc in DATACENTERS)
    size = image.size_bytes
    return [
        Target("demo.hosts_verified", sum(row.verified for row in rows), ">=", len(rows)),
        Target("demo.upstream_ratio", registry["payload_bytes"] / size, "<=", 1.05),
        Target("demo.cross_dc_ratio", crossed / size, "<=", 1.05),
        Target("demo.proxy_egress_ratio", egress / size, "<=", 2.0),
        Target("demo.setup_and_run_s", elapsed_s, "<=", 120),
    ]


async def _keep(cluster: DemoCluster, directory: Path) -> None:
    """Leave everything running and say what to try, until Ctrl-C."""
    peer = cluster.peers[0]
    ns = f"?ns={UPSTREAM}"
    print(f"\nrunning until Ctrl-C; configuration and logs are in {directory}\n\ntry:")
    command = Path(sys.executable).with_name("p2pdist")
    print(f"  curl '{peer.service_url}/v2/shop/app/manifests/1{ns}'")
    print(f"  {command} pull {UPSTREAM}/shop/app:1 --endpoint {peer.service_url} -o oci:/tmp/app")
    print(f"  {command} status --admin {peer.admin_url}")
    print(f"  curl {peer.admin_url}/metrics")
    print("  kill -9 any of the daemons, and pull again", flush=True)
    await asyncio.Event().wait()


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
