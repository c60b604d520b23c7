"""What this host asked for in runs of chunks: for which blob, and on which link."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

from p2pdist.model.ids import Digest, RequestId
from p2pdist.swarm.core.link_state import LinkState

REQUEST_IDS: Final = range(1, 1 << 32)


@dataclass(slots=True)
class _Request:
    digest: Digest
    link: LinkState
    chunks_left: int


class RequestTable:
    """Holds a request until its last chunk came, it was refused or withdrawn, or its link ended.

    Only the link that was asked can answer. Pure.
    """

    def __init__(self) -> None:
        self._ids = itertools.cycle(REQUEST_IDS)
        self._open: dict[RequestId, _Request] = {}

    def __len__(self) -> int:
        return len(self._open)

    def new_id(self) -> RequestId:
        """For any question to a neighbour: ids are shared with those that are not in runs."""
        return RequestId(next(self._ids))

    def expect(self, request_id: RequestId, digest: Digest, link: LinkState, chunks: int) -> None:
        """`link` was asked for `chunks` chunks of a blob."""
        self._open[request_id] = _Request(digest, link, chunks)

    def withdraw(self, request_id: RequestId) -> None:
        """Nobody waits for what still comes of it."""
        self._open.pop(request_id, None)

    def chunk_came(self, link: LinkState, request_id: RequestId) -> Digest | None:
        """Return for which blob the chunk is; None: nobody waits for it any more."""
        request = self._open.get(request_id)
        if request is None or request.link is not link:
            return None
        request.chunks_left -= 1
        if not request.chunks_left:
            del self._open[request_id]
        return request.digest

    def refused(self, link: LinkState, request_id: RequestId) -> Digest | None:
        """Nothing more comes of it; return for which blob it was."""
        request = self._open.get(request_id)
        if request is None or request.link is not link:
            return None
        del self._open[request_id]
        return request.digest

    def link_down(self, link: LinkState) -> None:
        """Nothing more comes over `link`."""
        for request_id in [i for i, request in self._open.items() if request.link is link]:
            del self._open[request_id]

    def validate(self) -> None:
        """Assert that what is open may still be answered."""
        for request in self._open.values():
            assert request.chunks_left > 0
            assert not request.link.closed
