"""Questions for what starts read of a layer, over a control connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from p2pdist.model.control import ToTracker, TraceAnswer, TraceAsk, digest_key
from p2pdist.model.ids import Digest


class TraceQuestions:
    def __init__(self, send: Callable[[ToTracker], None], seq: Iterator[int]) -> None:
        """`send` may drop a message: then no answer comes."""
        self._send = send
        self._seq = seq
        self._asked: dict[int, asyncio.Future[list[int]]] = {}

    async def ask(self, layer: Digest, *, timeout_s: float) -> list[int]:
        """Return the units that are likely to be read first; none where nobody knows, or answers
        in time."""
        seq = next(self._seq)
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._asked[seq] = answer
        self._send(TraceAsk(seq, digest_key(layer)))
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return []
        finally:
            del self._asked[seq]

    def answered(self, answer: TraceAnswer) -> None:
        waiting = self._asked.get(answer.seq)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer.units)
