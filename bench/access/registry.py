"""A docker-registry with users."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from bench.access.rights import Rights
from p2pdist.model.ids import digest_of
from tests.fakes.registry_images import BuiltImage


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def _begun(work: Path) -> tuple[str, Path]:
    work.mkdir()
    return f"127.0.0.1:{free_port()}", work / "registry.yml"


@asynccontextmanager
async def running_registry(work: Path, rights: Rights) -> AsyncIterator[str]:
    """Run it, and what it asks about users; yield its address."""
    address, config = _begun(work)
    async with rights.ready(work) as auth:
        settings = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(work / "storage")}},
            "http": {"addr": address},
            "auth": auth,
        }
        config.write_text(json.dumps(settings))
        with (work / "registry.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                "docker-registry", "serve", str(config), stdout=log, stderr=log
            )
        try:
            await _wait_listening(int(address.rpartition(":")[2]))
            yield address
        finally:
            process.terminate()
            await process.wait()


async def _wait_listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def push(
    session: aiohttp.ClientSession, address: str, repository: str, image: BuiltImage, given: str
) -> None:
    """Push as whom the `Authorization` is of."""
    headers = {"Authorization": given}
    base = f"http://{address}/v2/{repository}"
    for blob in (image.config, *image.layers):
        async with session.post(f"{base}/blobs/uploads/", headers=headers) as begun:
            begun.raise_for_status()
            place = begun.headers["Location"]
        query = {"digest": digest_of(blob)}
        async with session.put(place, params=query, data=blob, headers=headers) as done:
            done.raise_for_status()
    sent = {**headers, "Content-Type": image.media_type}
    async with session.put(f"{base}/manifests/1", data=image.manifest, headers=sent) as done:
        done.raise_for_status()
