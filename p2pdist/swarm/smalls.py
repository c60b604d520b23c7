"""Questions with one small answer: blobs of one chunk, manifests and tag statements."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from p2pdist.errors import PeerFault
from p2pdist.exchange.frames import GetSmall, GetStatement
from p2pdist.exchange.link import Link
from p2pdist.model.ids import Digest, RequestId, TagKey, digest_algorithm, digest_of
from p2pdist.registry.ports import CACHE

# Registry contract 3.7: other source after 2 s. A proxy may first have to ask its upstream.
PEER_ANSWER_S: Final = 1.0
PROXY_ANSWER_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class SmallAnswer:
    media_type: str
    body: bytes
    source: str = field(default=CACHE, compare=False)
    """Where the bytes came from: `CACHE`, or one of `counters.SOURCES`."""


Answer = SmallAnswer | bytes | None


class SmallQuestions:
    """Pending questions by request id; each ends in an answer, a refusal or the link's end."""

    def __init__(self) -> None:
        self._pending: dict[RequestId, tuple[Link, asyncio.Future[Answer]]] = {}

    def asks(self, link: Link) -> bool:
        """`link` has not answered yet."""
        return any(asked is link for asked, _ in self._pending.values())

    def owns(self, request_id: RequestId) -> bool:
        return request_id in self._pending

    async def small(
        self, link: Link, request_id: RequestId, digest: Digest, timeout_s: float
    ) -> SmallAnswer | None:
        """Ask `link` for a whole blob; None if it has none. Raise PeerFault for wrong bytes."""
        link.expect_small(request_id)
        link.send(GetSmall(request_id, digest))
        answer = await self._answer(link, request_id, timeout_s)
        if not isinstance(answer, SmallAnswer):
            return None
        if digest_of(answer.body, digest_algorithm(digest)) != digest:
            raise PeerFault("a small blob with wrong bytes", reason="hash")
        return answer

    async def statement(
        self, link: Link, request_id: RequestId, key: TagKey, timeout_s: float
    ) -> bytes | None:
        """Ask `link` for the statement about a tag; its signature is the caller's to check."""
        link.send(GetStatement(request_id, key))
        answer = await self._answer(link, request_id, timeout_s)
        return answer if isinstance(answer, bytes) else None

    async def _answer(self, link: Link, request_id: RequestId, timeout_s: float) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = (link, future)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            link.forget(request_id)
            return None
        finally:
            del self._pending[request_id]

    def answered(self, link: Link, request_id: RequestId, answer: Answer) -> None:
        asked, future = self._pending.get(request_id, (None, None))
        if asked is link and future is not None and not future.done():
            future.set_result(answer)

    def link_down(self, link: Link) -> None:
        for asked, future in self._pending.values():
            if asked is link and not future.done():
                future.set_result(None)
