"""What the upstream tests share: names, clients, DNS that says what it is told."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from p2pdist.model.ids import Digest
from p2pdist.model.private_places import PrivatePlace, parse_private_place
from p2pdist.oci.names import ImageName
from p2pdist.registry.reading.client import UpstreamClient, UpstreamEntry, UpstreamTimeouts
from p2pdist.registry.reading.credentials import fixed
from tests.fakes.registry import FakeRegistry

REPOSITORY = "library/app"
NAME = ImageName("registry.test", REPOSITORY)
HASTY = UpstreamTimeouts(connect_s=2.0, headers_s=0.5, idle_s=0.2, question_s=5.0)


class FakeDns(AbstractResolver):
    """Names and their addresses; nothing else resolves."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self.addresses:
            raise OSError(f"no such host: {host}")
        return [
            ResolveResult(
                hostname=host,
                host=self.addresses[host],
                port=port,
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        pass


def places(*texts: str) -> tuple[PrivatePlace, ...]:
    return tuple(map(parse_private_place, texts))


LOOPBACK = places("127.0.0.0/8")


def entry_for(
    registry: FakeRegistry, *, username: str = "", password: str = "", **settings: Any
) -> UpstreamEntry:
    """`allow_private`: its storage, unless told otherwise."""
    storage = places(registry.storage_url.removeprefix("http://"))
    given: dict[str, Any] = {"host": NAME.upstream, "url": registry.url, "allow_private": storage}
    if username:
        given["credentials"] = fixed(username, password)
    return UpstreamEntry(**{**given, **settings})


@asynccontextmanager
async def client_of(
    registry: FakeRegistry,
    *,
    timeouts: UpstreamTimeouts | None = None,
    dns: FakeDns | None = None,
    **settings: Any,
) -> AsyncIterator[UpstreamClient]:
    entry = entry_for(registry, **settings)
    async with UpstreamClient([entry], timeouts=timeouts, resolver=dns) as client:
        yield client


async def read_blob(client: UpstreamClient, digest: Digest, start: int = 0) -> bytes:
    async with client.open_blob(NAME, digest, start=start) as body:
        return b"".join([data async for data in body.chunks()])
