"""A host of the cluster that asks one node over the chunk exchange, and notes what it is told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from p2pdist.exchange import frames as fr
from p2pdist.exchange.link import Link
from p2pdist.exchange.securing import LinkIdentity
from p2pdist.exchange.transport import ExchangeLimits, ExchangeTransport
from p2pdist.model.geometry import CHUNK_SIZE_MIN_BYTES
from p2pdist.model.ids import Digest, HostId, MapId, RequestId, TagKey
from p2pdist.model.members import Address, Member, Place, Role
from tests.fakes.secrets import always

ANSWER_S = 10.0
ME = Member(HostId("a" * 32), Role.PEER, Place("dc1"))


class Asker:
    """Each question waits for its answer; `None` is a refusal."""

    def __init__(self) -> None:
        self.frames: list[fr.Frame] = []
        """All that was said to it, answers to its own questions excepted."""
        self.link: Link
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[bytes | None]] = {}

    async def get_small(self, digest: Digest) -> bytes | None:
        request_id = RequestId(next(self._ids))
        self.link.expect_small(request_id)
        return await self._ask(request_id, fr.GetSmall(request_id, digest))

    async def get_statement(self, key: TagKey) -> bytes | None:
        request_id = RequestId(next(self._ids))
        return await self._ask(request_id, fr.GetStatement(request_id, key))

    async def request(self, digest: Digest, map_id: MapId) -> bytes | None:
        """Ask for the first chunk of a blob of several."""
        request_id = RequestId(next(self._ids))
        self.link.expect_chunks(request_id, [(0, CHUNK_SIZE_MIN_BYTES)])
        return await self._ask(request_id, fr.Request(request_id, digest, map_id, 0, 1))

    async def say_interest(self, digest: Digest) -> list[fr.Frame]:
        """Return all that was said to it when the node had taken the Interest in."""
        self.link.send(fr.Interest(digest))
        await self.get_statement(TagKey(bytes(32)))
        return self.frames

    async def _ask(self, request_id: RequestId, frame: fr.Frame) -> bytes | None:
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = future
        self.link.send(frame)
        async with asyncio.timeout(ANSWER_S):
            return await future

    # --- the exchange's handler -----------------------------------------------------------------

    def link_up(self, link: Link) -> None: ...

    def link_down(self, link: Link, reason: str) -> None:
        for future in self._answers.values():
            if not future.done():
                future.set_exception(ConnectionError(reason))

    def frame(self, link: Link, frame: fr.Frame) -> None:
        match frame:
            case fr.Refuse(request_id) if request_id in self._answers:
                self._answers.pop(request_id).set_result(None)
            case fr.StatementIs(request_id, record):
                self._answers.pop(request_id).set_result(record)
            case _:
                self.frames.append(frame)

    def chunk(self, link: Link, request_id: int, chunk: int, data: bytearray) -> None:
        self._answers.pop(request_id).set_result(bytes(data))

    def small(self, link: Link, request_id: int, media_type: str, body: bytes) -> None:
        self._answers.pop(request_id).set_result(body)


@asynccontextmanager
async def asker(
    node: Address, secret: bytes, me: Member = ME, identity: LinkIdentity | None = None
) -> AsyncIterator[Asker]:
    """Linked to `node` for as long as the block lasts. `identity`: proves that it is `me`."""
    asking = Asker()
    transport = ExchangeTransport(
        asking,
        secret=always(secret),
        me=lambda: me,
        limits=ExchangeLimits(),
        identity=lambda: identity,
    )
    try:
        asking.link = await transport.dial(node, timeout_s=ANSWER_S)
        yield asking
    finally:
        await transport.close()
