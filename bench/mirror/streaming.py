"""A cold layer through a peer while upstream sends it at 20 MB/s: how far the client lags behind.

Registry and client run here and read one clock; tracker, proxy and peer are processes of their own.
The first byte is counted from the moment when upstream had sent the whole first chunk, which is
before the proxy could have verified it.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
from aiohttp import web

from bench.mirror.registry import PacedRegistry
from p2pdist.demo.image import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE
from p2pdist.demo.processes import Process, free_ports
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import digest_of
from p2pdist.process.keys import KeyFiles, make_keys

LAYER_BYTES = 256 << 20
RUNS = 3


@dataclass(frozen=True, slots=True)
class Streamed:
    first_byte_ms: float
    """From the first chunk's last byte leaving upstream to the first byte at the client."""
    end_ratio: float
    """Client's duration over upstream's, both from the client's request on."""
    seconds: float
    cpu_s_per_gb: float
    """Of tracker, proxy and peer together."""
    peak_mb: float
    """Of the largest of them."""


def measure(layer_bytes: int = LAYER_BYTES) -> Streamed:
    """Return the median of each figure over `RUNS` runs, each with fresh daemons."""
    runs = [asyncio.run(_run(layer_bytes, seed)) for seed in range(RUNS)]
    names = (field.name for field in fields(Streamed))
    return Streamed(**{n: statistics.median(getattr(run, n) for run in runs) for n in names})


async def _run(layer_bytes: int, seed: int) -> Streamed:
    rng = Random(seed)
    layer = b"".join(rng.randbytes(1 << 20) for _ in range(layer_bytes >> 20))
    digest = digest_of(layer)
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as name:
        async with (
            _daemons(Path(name), layer) as (registry, mirror_url, pids),
            aiohttp.ClientSession(f"{mirror_url}/v2/library/app/", auto_decompress=False) as client,
        ):
            async with client.get("manifests/1", raise_for_status=True) as answer:
                await answer.read()
            began_s, cpu_before_s = loop.time(), _cpu_s(pids)
            first_s, end_s = await _read(client, f"blobs/{digest}")
            cpu_s, peak_mb = _cpu_s(pids) - cpu_before_s, _peak_mb(pids)
    (body,) = registry.bodies
    chunk = geometry_for(layer_bytes).chunk_size_bytes
    upstream_s = body.reached_s(layer_bytes) - began_s
    first_byte_ms = (first_s - body.reached_s(chunk)) * 1e3
    seconds = end_s - began_s
    per_gb = cpu_s / layer_bytes * 1e9
    return Streamed(first_byte_ms, seconds / upstream_s, seconds, per_gb, peak_mb)


def _cpu_s(pids: list[int]) -> float:
    """User and system time of these processes so far."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    ticks = sum(int(stat[11]) + int(stat[12]) for stat in stats)
    return ticks / os.sysconf("SC_CLK_TCK")


def _peak_mb(pids: list[int]) -> float:
    """The highest resident memory of the largest of these processes."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return max(int(text.partition("VmHWM:")[2].split()[0]) for text in texts) / 1024


async def _read(client: aiohttp.ClientSession, url: str) -> tuple[float, float]:
    """When the first and the last byte came."""
    loop = asyncio.get_running_loop()
    first_s, total = 0.0, 0
    async with client.get(url, raise_for_status=True) as answer:
        async for data in answer.content.iter_any():
            first_s = first_s or loop.time()
            total += len(data)
        assert total == answer.content_length
    return first_s, loop.time()


@asynccontextmanager
async def _daemons(
    directory: Path, layer: bytes
) -> AsyncIterator[tuple[PacedRegistry, str, list[int]]]:
    """A registry with `layer` here, and a peer in front of it; the mirror's URL, the daemons."""
    ports = free_ports(8)
    registry = _registry_of(layer)
    runner = web.AppRunner(registry.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", ports[0]).start()
    processes: list[Process] = []
    try:
        async with aiohttp.ClientSession() as session:
            keys = make_keys(directory / "keys")
            for role, admin, own in _roles(ports, keys):
                config = directory / f"{role}.toml"
                config.write_text(_config(directory, role, own, keys, ports[0]))
                log, url = directory / f"{role}.log", f"http://127.0.0.1:{admin}"
                arguments = [role, "--config", str(config)]
                processes.append(
                    await Process.start(
                        role, "p2pdist.cli.main", arguments, log, url, f"{url}/readyz"
                    )
                )
                await processes[-1].wait_ready(session)
        pids = [process.process.pid for process in processes]
        yield registry, f"http://127.0.0.1:{ports[6]}", pids
    finally:
        await asyncio.gather(*(process.end() for process in processes))
        await runner.cleanup()


def _registry_of(layer: bytes) -> PacedRegistry:
    config = json.dumps({"architecture": "amd64", "os": "linux"}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor(CONFIG_TYPE, config),
        "layers": [_descriptor(LAYER_TYPE, layer)],
    }
    return PacedRegistry(json.dumps(manifest).encode(), {digest_of(config): config}, layer)


def _descriptor(media_type: str, body: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(body), "size": len(body)}


def _roles(ports: list[int], keys: KeyFiles) -> list[tuple[str, int, dict[str, Any]]]:
    """Role, admin port and own settings of each daemon, in the order of their start."""
    listen = [f"127.0.0.1:{port}" for port in ports]
    trackers = [f"tcp://{listen[1]}"]
    tracker = {"listen": listen[1], "admin_listen": listen[2]}
    proxy = {
        "listen": listen[3],
        "exchange_listen": "127.0.0.1:0",
        "admin_listen": listen[4],
        "key_file": str(keys.key_file),
        "trackers": trackers,
    }
    peer = {
        "listen": listen[6],
        "exchange_listen": "127.0.0.1:0",
        "admin_listen": listen[5],
        "proxies": [f"http://{listen[3]}"],
        "trackers": trackers,
    }
    return [("tracker", ports[2], tracker), ("proxy", ports[4], proxy), ("peer", ports[5], peer)]


def _config(
    directory: Path, role: str, own: dict[str, Any], keys: KeyFiles, registry_port: int
) -> str:
    sections: dict[str, dict[str, Any]] = {
        "[cluster]": {"secret_file": str(keys.secret_file), "proxy_keys": [keys.public_key]},
        "[host]": {"state_dir": str(directory / role)},
        f"[{role}]": own,
        "[[upstream]]": {
            "host": "docker.io",
            "url": f"http://127.0.0.1:{registry_port}",
        },
    }
    lines = []
    for header, values in sections.items():
        lines += [header, *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"
