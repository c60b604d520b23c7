"""A registry, a tracker, a proxy, a peer where it is wanted, and hosts that dial one of them.

The daemons and the diallers (`diallers`) are processes of their own; the registry is here.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp
from aiohttp import web

from p2pdist.demo.image import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE
from p2pdist.demo.processes import POLL_S, READY_S, Process, fetch_json, free_ports
from p2pdist.model.ids import Digest, digest_of
from p2pdist.process.keys import KeyFiles, make_keys

LAYER_BYTES: Final = 64 << 20
READ_BYTES: Final = 1 << 20
CONFIG: Final = b"{}"


class Registry:
    """Serves one image of one layer for each tag `1`, `2`, …; keeps the last one in memory."""

    def __init__(self) -> None:
        self._layer = b""
        self._made = 0

    def next_layer(self) -> tuple[str, Digest]:
        """Make a layer that nobody has seen; return its tag and digest."""
        self._made += 1
        rng = Random(self._made)
        self._layer = b"".join(rng.randbytes(1 << 20) for _ in range(LAYER_BYTES >> 20))
        return str(self._made), digest_of(self._layer)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v2/{name:.+}/manifests/{tag}", self._manifest)
        app.router.add_get("/v2/{name:.+}/blobs/{digest}", self._blob)
        return app

    async def _manifest(self, request: web.Request) -> web.Response:
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor(CONFIG_TYPE, CONFIG),
            "layers": [_descriptor(LAYER_TYPE, self._layer)],
        }
        body = json.dumps(manifest).encode()
        headers = {"Content-Type": MANIFEST_TYPE, "Docker-Content-Digest": digest_of(body)}
        return web.Response(body=body, headers=headers)

    async def _blob(self, request: web.Request) -> web.Response:
        whole = request.match_info["digest"] == digest_of(CONFIG)
        return web.Response(body=CONFIG if whole else self._layer)


def _descriptor(media_type: str, body: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(body), "size": len(body)}


class Hosts:
    """The process of the diallers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def order(self, order: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(order.encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise SystemExit("the diallers ended")
        state: dict[str, Any] = json.loads(line)
        return state


@dataclass(slots=True)
class Bench:
    registry: Registry
    daemon: Process
    """The one that is measured, read from and dialled."""
    hosts: Hosts
    url: str
    client: aiohttp.ClientSession

    @property
    def cpu_s(self) -> float:
        """User and system time of the daemon so far."""
        stat = Path(f"/proc/{self.daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def rss_kb(self) -> int:
        status = Path(f"/proc/{self.daemon.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    async def cold_read(self, *, listened_to: bool = False) -> tuple[float, float]:
        """Read a layer that the daemon does not have; return seconds and its CPU seconds."""
        tag, digest = self.registry.next_layer()
        async with self.client.get(f"{self.url}/v2/app/manifests/{tag}") as answer:
            answer.raise_for_status()
            await answer.read()
        if listened_to:
            await self.hosts.order(f"interest {digest}")
        began_s, cpu_s, total = asyncio.get_running_loop().time(), self.cpu_s, 0
        async with self.client.get(f"{self.url}/v2/app/blobs/{digest}") as answer:
            answer.raise_for_status()
            async for part in answer.content.iter_chunked(READ_BYTES):
                total += len(part)
        if total != LAYER_BYTES:
            raise SystemExit(f"{total} bytes instead of {LAYER_BYTES}")
        return asyncio.get_running_loop().time() - began_s, self.cpu_s - cpu_s


@asynccontextmanager
async def running(
    measured: str = "proxy", *, links_max: int = 1024, upload_rate: str = "0"
) -> AsyncIterator[Bench]:
    """`measured`: "proxy" or "peer"; `upload_rate` is the proxy's. A tracker is there because each
    read would wait for a lease without one."""
    ports = free_ports(9)
    listen = [f"127.0.0.1:{port}" for port in ports]
    registry = Registry()
    runner = web.AppRunner(registry.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", ports[0]).start()
    with tempfile.TemporaryDirectory(prefix="p2pdist-scale-") as name:
        work = Path(name)
        keys = make_keys(work / "keys")
        roles: dict[str, dict[str, Any]] = {
            "tracker": {"listen": listen[1], "admin_listen": listen[2]},
            "proxy": {
                "listen": listen[3],
                "exchange_listen": listen[4],
                "admin_listen": listen[5],
                "key_file": str(keys.key_file),
                "trackers": [f"tcp://{listen[1]}"],
                "links_max": links_max,
                "upload_rate": upload_rate,
            },
        }
        if measured == "peer":
            roles["peer"] = {
                "listen": listen[6],
                "exchange_listen": listen[7],
                "admin_listen": listen[8],
                "trackers": [f"tcp://{listen[1]}"],
                "proxies": [f"http://{listen[3]}"],
                "direct": False,
            }
        own_ports = {"proxy": ports[3:6], "peer": ports[6:9]}[measured]
        daemons = []
        for role, own in roles.items():
            config = work / f"{role}.toml"
            config.write_text(_config(work, role, own, keys, listen[0]))
            log, url = work / f"{role}.log", f"http://{own['admin_listen']}"
            arguments = [role, "--config", str(config)]
            daemons.append(
                await Process.start(role, "p2pdist.cli.main", arguments, log, url, f"{url}/readyz")
            )
        diallers = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.scale.diallers",
            "--port", str(own_ports[1]), "--secret-file", str(keys.secret_file),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with aiohttp.ClientSession(auto_decompress=False) as client:
                for daemon in daemons:
                    await daemon.wait_ready(client)
                await _tracked(client, f"http://127.0.0.1:{own_ports[2]}/api/v1/status")
                url = f"http://127.0.0.1:{own_ports[0]}"
                yield Bench(registry, daemons[-1], Hosts(diallers), url, client)
        finally:
            assert diallers.stdin is not None
            diallers.stdin.close()
            await diallers.wait()
            for daemon in reversed(daemons):
                await daemon.end()
            await runner.cleanup()


async def _tracked(client: aiohttp.ClientSession, status_url: str) -> None:
    """Return once the daemon has reached the tracker."""
    async with asyncio.timeout(READY_S):
        while not (await fetch_json(client, status_url))["tracker_connected"]:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)


def _config(work: Path, role: str, own: dict[str, Any], keys: KeyFiles, registry: str) -> str:
    sections: dict[str, dict[str, Any]] = {
        "[cluster]": {"secret_file": str(keys.secret_file), "proxy_keys": [keys.public_key]},
        "[host]": {"state_dir": str(work / role)},
        f"[{role}]": own,
        "[[upstream]]": {
            "host": "docker.io",
            "url": f"http://{registry}",
        },
    }
    lines = []
    for header, values in sections.items():
        lines += [header, *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"
