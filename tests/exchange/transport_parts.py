"""Two ends of a link: a handler that notes everything, and transports on loopback."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from p2pdist.exchange import frames as fr
from p2pdist.exchange.link import Link
from p2pdist.exchange.securing import LinkIdentity
from p2pdist.exchange.transport import ExchangeLimits, ExchangeTransport, Watchers
from p2pdist.model.ids import Digest, HostId, MapId, RequestId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.swarm.assembly import link_identity
from tests.fakes.secrets import always
from tests.process.identities import TestCa

CHUNK = 256 * 1024
MIB = 1 << 20
DIGEST = Digest("sha256:" + "5" * 64)
MAP_ID = MapId(b"m" * 16)
SECRET = b"a secret of the cluster"


@dataclass
class End:
    """A node's handler that serves one file and notes everything."""

    fileno: int = -1
    links: list[Link] = field(default_factory=list)
    downs: list[str] = field(default_factory=list)
    frames: list[fr.Frame] = field(default_factory=list)
    chunks: dict[tuple[int, int], bytes] = field(default_factory=dict)
    smalls: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def link_up(self, link: Link) -> None:
        self.links.append(link)
        self.changed.set()

    def link_down(self, link: Link, reason: str) -> None:
        self.downs.append(reason)
        self.changed.set()

    def frame(self, link: Link, frame: fr.Frame) -> None:
        self.frames.append(frame)
        if isinstance(frame, fr.Request):
            chunks = range(frame.first, frame.first + frame.count)
            spans = [(i, i * CHUNK, CHUNK) for i in chunks]
            done = self._done(frame.request_id)
            link.send_run(frame.request_id, self.fileno, spans, done, bulk=frame.bulk)
        elif isinstance(frame, fr.Cancel):
            link.cancel_run(frame.request_id)
        elif isinstance(frame, fr.Retract):
            raise RuntimeError("a bug in the handler")
        self.changed.set()

    def _done(self, request_id: int) -> Callable[[int], None]:
        def done(nbytes: int) -> None:
            assert request_id not in self.done, "called twice"
            self.done[request_id] = nbytes
            self.changed.set()

        return done

    def chunk(self, link: Link, request_id: int, chunk: int, data: bytearray) -> None:
        self.chunks[request_id, chunk] = bytes(data)
        self.changed.set()

    def small(self, link: Link, request_id: int, media_type: str, body: bytes) -> None:
        self.smalls[request_id] = (media_type, body)
        self.changed.set()

    async def has_links(self, count: int) -> None:
        await self.until(lambda: len(self.links) == count)

    async def has_chunks(self, count: int) -> None:
        await self.until(lambda: len(self.chunks) == count)

    async def has_done(self, request_id: int) -> None:
        await self.until(lambda: request_id in self.done)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def no_identity(name: str) -> LinkIdentity | None:
    return None


def identities(ca: TestCa) -> Callable[[str], LinkIdentity]:
    """What `default_identity` may be for links that are sealed."""

    @functools.cache
    def of(name: str) -> LinkIdentity:
        own = link_identity(ca.identity("peer", HostId(name * 32)))
        assert own is not None
        return own

    return of


default_identity: Callable[[str], LinkIdentity | None] = no_identity
"""Whose links are sealed; tests of links run with either."""


def transport_of(
    end: End,
    name: str,
    secret: bytes = SECRET,
    limits: ExchangeLimits | None = None,
    *,
    watchers: Watchers | None = None,
    instance: bytes = b"",
    identity: LinkIdentity | None = None,
    addresses: tuple[Address, ...] = (),
) -> ExchangeTransport:
    member = Member(HostId(name * 32), Role.PEER, Place("dc1"), addresses)
    shown = identity or default_identity(name)
    return ExchangeTransport(
        end,
        secret=always(secret),
        me=lambda: member,
        limits=limits or ExchangeLimits(),
        watchers=watchers,
        instance=instance,
        identity=lambda: shown,
    )


@asynccontextmanager
async def linked(end: End, other: End) -> AsyncIterator[tuple[Link, Link]]:
    """`end` dialled `other`; yields both ends of the link."""
    ours, theirs = transport_of(end, "a"), transport_of(other, "b")
    try:
        address = await theirs.listen("127.0.0.1", 0)
        link = await ours.dial(address, timeout_s=5)
        await other.until(lambda: other.links)
        yield link, other.links[0]
    finally:
        await ours.close()
        await theirs.close()


def content(path: Path, nbytes: int) -> int:
    path.write_bytes(Random(3).randbytes(nbytes))
    return os.open(path, os.O_RDONLY)


def ask(link: Link, request_id: int, first: int, count: int, *, bulk: bool = False) -> None:
    link.expect_chunks(request_id, [(i, CHUNK) for i in range(first, first + count)])
    link.send(fr.Request(RequestId(request_id), DIGEST, MAP_ID, first, count, bulk))
