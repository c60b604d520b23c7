"""Two datacenters on loopback: a registry, and in each a tracker, a proxy and three peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import tomlkit

from p2pdist.demo.image import DemoImage
from p2pdist.demo.processes import Process, free_ports
from p2pdist.process.keys import KeyFiles, make_keys

UPSTREAM: Final = "registry.demo"
DATACENTERS: Final = ("dc1", "dc2")
PEERS_PER_DC: Final = 3


@dataclass(frozen=True, slots=True)
class Daemon:
    """`service` is the port that its users call: `/v2/` or control."""

    name: str
    role: str
    dc: str
    service: int
    exchange: int
    admin: int

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin}"

    @property
    def service_url(self) -> str:
        return f"http://127.0.0.1:{self.service}"


@dataclass(slots=True)
class DemoCluster:
    registry_port: int
    daemons: list[Daemon] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    """Of the registry and the daemons, once they were started."""

    @property
    def peers(self) -> list[Daemon]:
        return [d for d in self.daemons if d.role == "peer"]

    def one(self, role: str, dc: str) -> Daemon:
        return next(d for d in self.daemons if (d.role, d.dc) == (role, dc))


def plan_cluster() -> DemoCluster:
    """Choose names and free ports for every daemon."""
    names = [(role, dc, 1) for dc in DATACENTERS for role in ("tracker", "proxy")]
    names += [("peer", dc, i) for dc in DATACENTERS for i in range(1, PEERS_PER_DC + 1)]
    ports = iter(free_ports(3 * len(names) + 1))
    cluster = DemoCluster(next(ports))
    for role, dc, number in names:
        name = f"{dc}-{role}{number if role == 'peer' else ''}"
        cluster.daemons.append(Daemon(name, role, dc, next(ports), next(ports), next(ports)))
    return cluster


@asynccontextmanager
async def running_cluster(
    directory: Path, image: DemoImage, session: aiohttp.ClientSession
) -> AsyncIterator[DemoCluster]:
    """Run all processes for as long as the block lasts; they end with it, whatever happens."""
    (directory / "blobs" / "manifest.json").write_bytes(image.manifest)
    keys = make_keys(directory / "keys")
    cluster = plan_cluster()
    async with AsyncExitStack() as stack:
        processes = cluster.processes
        processes.append(await _start_registry(directory, cluster))
        stack.push_async_callback(_end_all, processes)
        for daemon in cluster.daemons:
            path = directory / f"{daemon.name}.toml"
            path.write_text(_config(directory, cluster, daemon, keys))
            log_path = directory / f"{daemon.name}.log"
            arguments = [daemon.role, "--config", str(path)]
            url = daemon.admin_url if daemon.role == "tracker" else daemon.service_url
            ready = f"{daemon.admin_url}/readyz"
            processes.append(
                await Process.start(
                    daemon.name, "p2pdist.cli.main", arguments, log_path, url, ready
                )
            )
        for process in processes:
            await process.wait_ready(session)
        yield cluster


async def _start_registry(directory: Path, cluster: DemoCluster) -> Process:
    port = cluster.registry_port
    return await Process.start(
        "registry",
        "p2pdist.demo.registry",
        ["--dir", str(directory / "blobs"), "--port", str(port)],
        directory / "registry.log",
        f"http://127.0.0.1:{port}",
        f"http://127.0.0.1:{port}/v2/",
    )


async def _end_all(processes: list[Process]) -> None:
    await asyncio.gather(*(process.end() for process in processes))


def _config(directory: Path, cluster: DemoCluster, daemon: Daemon, keys: KeyFiles) -> str:
    tracker = f"tcp://127.0.0.1:{cluster.one('tracker', daemon.dc).service}"
    own: dict[str, Any] = {
        "listen": f"127.0.0.1:{daemon.service}",
        "admin_listen": f"127.0.0.1:{daemon.admin}",
    }
    if daemon.role != "tracker":
        own["exchange_listen"] = f"127.0.0.1:{daemon.exchange}"
        own["trackers"] = [tracker]
    if daemon.role == "proxy":
        own["key_file"] = str(keys.key_file)
        first = cluster.one("proxy", DATACENTERS[0])
        own["parents"] = [] if daemon.dc == first.dc else [first.service_url]
    if daemon.role == "peer":
        own["proxies"] = [cluster.one("proxy", daemon.dc).service_url]
        own["direct"] = False
    upstream = {"host": UPSTREAM, "url": f"http://127.0.0.1:{cluster.registry_port}"}
    sections = {
        "cluster": {"secret_file": str(keys.secret_file), "proxy_keys": [keys.public_key]},
        "host": {"state_dir": str(directory / "state" / daemon.name), "dc": daemon.dc},
        daemon.role: own,
        "upstream": [upstream],
    }
    return tomlkit.dumps(sections)
