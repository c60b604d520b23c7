"""What tests do as a runtime does: pull by tag and read every blob."""

from __future__ import annotations

import asyncio
import json
from random import Random

import aiohttp

from p2pdist.model.ids import Digest, digest_of


def random_bytes(size: int, seed: int) -> bytes:
    return Random(seed).randbytes(size)


async def read_blob(client: aiohttp.ClientSession, base_url: str, digest: str) -> bytes:
    """Read a blob of `library/app`; raise ClientError for a refused or short body."""
    url = f"{base_url}/v2/library/app/blobs/{digest}"
    async with client.get(url, raise_for_status=True) as answer:
        return await answer.read()


async def pull(client: aiohttp.ClientSession, base_url: str, tag: str = "1") -> dict[Digest, bytes]:
    """Pull `library/app:tag`, all blobs at once; every one has its digest."""
    url = f"{base_url}/v2/library/app/manifests/{tag}"
    async with client.get(url, raise_for_status=True) as answer:
        manifest = json.loads(await answer.read())
    digests = [d["digest"] for d in (manifest["config"], *manifest["layers"])]
    bodies = await asyncio.gather(*(read_blob(client, base_url, d) for d in digests))
    for digest, body in zip(digests, bodies, strict=True):
        assert digest_of(body) == digest
    return dict(zip(digests, bodies, strict=True))
