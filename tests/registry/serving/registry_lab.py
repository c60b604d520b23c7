"""A `RegistryEndpoint` on a real socket, over a fake backend whose faults a test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from p2pdist.model.ids import Digest
from p2pdist.registry.serving.endpoint import RegistryEndpoint
from p2pdist.registry.serving.pull import PullRecord
from tests.fakes.backend import FakeBackend, SeededContent
from tests.fakes.http_client import Answer, Headers, fetch
from tests.fakes.http_server import serve_app

_DEADLINE_S = 20.0


class RegistryLab:
    """What a test reaches: the endpoint's URL, its backend, and the records of ended requests."""

    def __init__(self, backend: FakeBackend, base_url: str) -> None:
        self.backend = backend
        self.base_url = base_url
        self.endpoint: RegistryEndpoint
        self.records: asyncio.Queue[PullRecord] = asyncio.Queue()

    def seed_blob(self, data: bytes) -> tuple[Digest, str]:
        """Return the digest and the target of a blob."""
        (digest,) = self.backend.content.seed("docker.io", "library/app", blobs=(data,))
        return digest, f"/v2/library/app/blobs/{digest}"

    async def get(self, target: str, *, method: str = "GET", headers: Headers = ()) -> Answer:
        return await fetch(self.base_url, target, method=method, headers=headers)

    async def wait_record(self) -> PullRecord:
        async with asyncio.timeout(_DEADLINE_S):
            return await self.records.get()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that reads little ahead, so that a slow reader is felt at once."""
        url = urlsplit(self.base_url)
        return await asyncio.open_connection(url.hostname, url.port, limit=1024)


@asynccontextmanager
async def registry_lab(
    directory: Path, backend: FakeBackend | None = None, **settings: Any
) -> AsyncIterator[RegistryLab]:
    backend = backend or FakeBackend(SeededContent(), directory)
    lab = RegistryLab(backend, "")
    endpoint = lab.endpoint = RegistryEndpoint(
        backend,
        upstreams={"docker.io", "ghcr.io"},
        default_upstream="docker.io",
        on_done=lab.records.put_nowait,
        **settings,
    )
    async with serve_app(endpoint.app()) as lab.base_url:
        yield lab
