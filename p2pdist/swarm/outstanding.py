"""What this node asked for in runs of chunks: who waits for the answer, and on which link."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final, Protocol

from p2pdist.exchange.link import Link
from p2pdist.model.ids import RequestId

REQUEST_IDS: Final = range(1, 1 << 32)


class Asker(Protocol):
    """A blob that asks for chunks."""

    def arrived(self, link: Link, request_id: RequestId, chunk: int, data: bytearray) -> None: ...

    def refused(self, link: Link, request_id: RequestId, *, gone: bool) -> None: ...


@dataclass(slots=True)
class _Request:
    asker: Asker
    link: Link
    chunks_left: int


class RequestTable:
    """Holds a request until its last chunk came, it was refused or withdrawn, or its link ended.

    Only the link that was asked can answer.
    """

    def __init__(self) -> None:
        self._ids = itertools.cycle(REQUEST_IDS)
        self._open: dict[RequestId, _Request] = {}

    def __len__(self) -> int:
        return len(self._open)

    def new_id(self) -> RequestId:
        """For any question to a neighbour: ids are shared with those that are not in runs."""
        return RequestId(next(self._ids))

    def expect(self, request_id: RequestId, asker: Asker, link: Link, chunks: int) -> None:
        """`asker` asked `link` for `chunks` chunks."""
        self._open[request_id] = _Request(asker, link, chunks)

    def withdraw(self, request_id: RequestId) -> None:
        """Nobody waits for what still comes of it."""
        self._open.pop(request_id, None)

    def chunk_came(self, link: Link, request_id: RequestId) -> Asker | None:
        """Return who waits for the chunk; None: nobody does any more."""
        request = self._open.get(request_id)
        if request is None or request.link is not link:
            return None
        request.chunks_left -= 1
        if not request.chunks_left:
            del self._open[request_id]
        return request.asker

    def refused(self, link: Link, request_id: RequestId) -> Asker | None:
        """Nothing more comes of it; return who waited."""
        request = self._open.get(request_id)
        if request is None or request.link is not link:
            return None
        del self._open[request_id]
        return request.asker

    def link_down(self, link: Link) -> None:
        """Nothing more comes over `link`."""
        for request_id in [i for i, request in self._open.items() if request.link is link]:
            del self._open[request_id]
