"""The `endpoint` fixture: the same statements for everything that serves `/v2/`.

To put another endpoint to the test, write an `EndpointFactory` and add it to `FACTORIES`.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from p2pdist.model.ids import Digest
from p2pdist.registry.serving.endpoint import RegistryEndpoint
from tests.fakes.backend import FakeBackend, SeededContent
from tests.fakes.cluster import open_lab, url_of
from tests.fakes.http_client import Answer, Headers, fetch
from tests.fakes.http_server import serve_app

UPSTREAMS = ("docker.io", "ghcr.io", "registry.test:5000")
"""Every endpoint under test serves these, `docker.io` by default."""


class EndpointFactory(Protocol):
    """Starts what is under test in front of upstreams that hold `content`; yields its base URL.

    `content` grows while the endpoint runs, and each request that reaches an upstream must be
    added to `content.requests`. What was asked for once must be cached.
    """

    def __call__(
        self, content: SeededContent, directory: Path
    ) -> AbstractAsyncContextManager[str]: ...


@asynccontextmanager
async def fake_backend_endpoint(content: SeededContent, directory: Path) -> AsyncIterator[str]:
    endpoint = RegistryEndpoint(
        FakeBackend(content, directory), upstreams=UPSTREAMS, default_upstream="docker.io"
    )
    async with serve_app(endpoint.app()) as base_url:
        yield base_url


@asynccontextmanager
async def _upstreams_of(content: SeededContent, directory: Path) -> AsyncIterator[dict[str, str]]:
    """One registry for each upstream host, all over the same content; yields their base URLs."""
    async with AsyncExitStack() as stack:
        urls = {}
        for host in UPSTREAMS:
            backend = FakeBackend(content, directory)
            endpoint = RegistryEndpoint(backend, upstreams=(host,), default_upstream=host)
            urls[host] = await stack.enter_async_context(serve_app(endpoint.app()))
        yield urls


@asynccontextmanager
async def proxy_endpoint(content: SeededContent, directory: Path) -> AsyncIterator[str]:
    async with _upstreams_of(content, directory) as urls, open_lab(directory / "lab", urls) as lab:
        proxy = await lab.proxy()
        yield url_of(proxy.registry)


@asynccontextmanager
async def peer_endpoint(content: SeededContent, directory: Path) -> AsyncIterator[str]:
    async with _upstreams_of(content, directory) as urls, open_lab(directory / "lab", urls) as lab:
        await lab.tracker()
        await lab.proxy()
        peer = await lab.peer("peer")
        yield url_of(peer.mirror)


FACTORIES: dict[str, EndpointFactory] = {
    "fake": fake_backend_endpoint,
    "proxy": proxy_endpoint,
    "peer": peer_endpoint,
}


@dataclass
class Endpoint:
    """A running endpoint and the upstreams behind it."""

    base_url: str
    content: SeededContent
    _fresh: itertools.count[int]

    def seed(
        self,
        upstream: str = "docker.io",
        repository: str = "library/app",
        *,
        tag: str | None = None,
        manifest: bytes | None = None,
        blobs: tuple[bytes, ...] = (),
    ) -> list[Digest]:
        return self.content.seed(upstream, repository, tag=tag, manifest=manifest, blobs=blobs)

    def seed_cold_blob(self, size_bytes: int) -> tuple[Digest, bytes]:
        """A blob of this size that nobody ever asked for."""
        data = bytes((i * 7 + next(self._fresh)) % 251 for i in range(size_bytes))
        (digest,) = self.seed(blobs=(data,))
        return digest, data

    async def warm(self, target: str) -> None:
        answer = await self.get(target)
        assert answer.status == 200

    async def get(self, target: str, *, method: str = "GET", headers: Headers = ()) -> Answer:
        return await fetch(self.base_url, target, method=method, headers=headers)

    def upstream_requests(self) -> int:
        return len(self.content.requests)


@pytest.fixture(params=sorted(FACTORIES))
async def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Endpoint]:
    content = SeededContent()
    async with FACTORIES[request.param](content, tmp_path) as base_url:
        yield Endpoint(base_url, content, itertools.count())
