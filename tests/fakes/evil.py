"""A peer that knows the cluster secret and lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from p2pdist.exchange import frames as fr
from p2pdist.exchange.link import Link
from p2pdist.exchange.transport import ExchangeLimits, ExchangeTransport
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import Digest, HostId, MapId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.model.statements import Keyring, MapHead
from tests.fakes.secrets import always

ME = Member(HostId("e" * 32), Role.PEER, Place("dc1"))


class EvilPeer:
    """Says that it holds every chunk of a blob, and sends `garbage` when asked for one."""

    def __init__(self, keyring: Keyring, digest: Digest) -> None:
        self.records: list[bytes] = []
        """Everything signed that it was told."""
        self.chunks_sent = 0
        self.link: Link | None = None
        self.linked = asyncio.Event()
        self.down = asyncio.Event()
        self.down_reason = ""
        self.on_head: list[fr.Frame] = []
        """Said once more when the map of the blob is known."""
        self.offers = True
        """It says that it holds the blob, as soon as it knows the map."""
        self._keyring = keyring
        self._digest = digest

    def link_up(self, link: Link) -> None:
        self.link = link
        self.linked.set()

    def link_down(self, link: Link, reason: str) -> None:
        self.down_reason = reason
        self.down.set()

    def frame(self, link: Link, frame: fr.Frame) -> None:
        match frame:
            case fr.MapRecord(record):
                self.records.append(record)
                statement = self._keyring.open(record)
                if isinstance(statement, MapHead) and statement.digest == self._digest:
                    self._offer_all(link, statement)
            case fr.Request():
                self._send_garbage(link, frame)
            case _:
                pass

    def _offer_all(self, link: Link, head: MapHead) -> None:
        count = geometry_for(head.size_bytes).chunk_count
        if self.offers:
            link.send(fr.Offer(self._digest, MapId(head.map_id), ((0, count),)))

    def _send_garbage(self, link: Link, request: fr.Request) -> None:
        for chunk in range(request.first, request.first + request.count):
            for offset in range(0, 256 * 1024, fr.SLICE_BYTES_MAX):
                payload = memoryview(bytes(fr.SLICE_BYTES_MAX))
                link.send(fr.Data(request.request_id, chunk, offset, payload))
            self.chunks_sent += 1

    def chunk(self, link: Link, request_id: int, chunk: int, data: bytearray) -> None: ...

    def small(self, link: Link, request_id: int, media_type: str, body: bytes) -> None: ...


@asynccontextmanager
async def evil_peer(
    victim: Address, secret: bytes, keyring: Keyring, digest: Digest
) -> AsyncIterator[EvilPeer]:
    """Linked to `victim`, with its interest in `digest` declared."""
    evil = EvilPeer(keyring, digest)
    transport = ExchangeTransport(
        evil,
        secret=always(secret),
        me=lambda: ME,
        limits=ExchangeLimits(),
    )
    try:
        link = await transport.dial(victim, timeout_s=5)
        link.send(fr.Interest(digest))
        yield evil
    finally:
        await transport.close()
