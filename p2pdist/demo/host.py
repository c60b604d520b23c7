"""One host of the demonstration pulls the image through its own mirror and checks every byte."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from typing import Final

import aiohttp

from p2pdist.demo.cluster import UPSTREAM, Daemon
from p2pdist.model.ids import digest_of

LAYERS_AT_ONCE: Final = 3  # as dockerd does
READ_BYTES: Final = 1 << 20


@dataclass(slots=True)
class HostPull:
    """Progress of one host; `seconds` and `verified` are set at the end."""

    peer: Daemon
    total_bytes: int
    got_bytes: int = 0
    seconds: float = 0.0
    verified: bool = False
    error: str = ""

    async def run(self, session: aiohttp.ClientSession, manifest_digest: str) -> None:
        """Pull by tag; never raises: what went wrong is in `error`."""
        began_s = asyncio.get_running_loop().time()
        try:
            await self._pull(session, manifest_digest)
            self.verified = True
        except* (aiohttp.ClientError, ValueError, TimeoutError) as group:
            error = _first(group)
            self.error = str(error) or type(error).__name__
        self.seconds = asyncio.get_running_loop().time() - began_s

    async def _pull(self, session: aiohttp.ClientSession, manifest_digest: str) -> None:
        url = f"{self.peer.service_url}/v2/shop/app/manifests/1"
        async with session.get(url, params={"ns": UPSTREAM}, raise_for_status=True) as answer:
            body = await answer.read()
        if digest_of(body) != manifest_digest:
            raise ValueError("the manifest has another digest than the registry's")
        manifest = json.loads(body)
        slots = asyncio.Semaphore(LAYERS_AT_ONCE)
        async with asyncio.TaskGroup() as layers:
            for descriptor in (manifest["config"], *manifest["layers"]):
                layers.create_task(self._blob(session, slots, descriptor["digest"]))

    async def _blob(
        self, session: aiohttp.ClientSession, slots: asyncio.Semaphore, digest: str
    ) -> None:
        whole = hashlib.sha256()
        url = f"{self.peer.service_url}/v2/shop/app/blobs/{digest}"
        async with (
            slots,
            session.get(url, params={"ns": UPSTREAM}, raise_for_status=True) as answer,
        ):
            async for data in answer.content.iter_chunked(READ_BYTES):
                await asyncio.to_thread(whole.update, data)
                self.got_bytes += len(data)
        if f"sha256:{whole.hexdigest()}" != digest:
            raise ValueError(f"{digest} came with other bytes")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What failed first: the other layers of the host end with it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
