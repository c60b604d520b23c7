"""A body from upstream at the pace of what it is for."""

from __future__ import annotations

from typing import Final

from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.fallback import OutsideBody

PIECE_BYTES: Final = 128 * 1024


class PacedBody:
    """Pays for what has arrived at this host, of which the kernel may hold a part unread.

    Not to read keeps the source from sending, once that part is as large as it may be.
    """

    def __init__(self, active: ActiveBlob) -> None:
        self._active = active
        self._paid_bytes = 0
        self._limited = False

    async def ask(self) -> None:
        """Return when the body may be asked for: what comes before its first read is paid for."""
        if (ahead_bytes := self._active.ahead_bytes) is not None:
            self._paid_bytes += ahead_bytes
            await self._active.paced(ahead_bytes)

    async def read(self, body: OutsideBody) -> bool:
        """Return when the next read is due; False: ask for the rest anew, it is urgent now."""
        if not self._active.bulk:
            await self._active.paced(0)
            return not self._limited
        self.limit(body)
        # In pieces: the pace lets one of them pass above its bound for any second.
        while (due_bytes := min(PIECE_BYTES, body.arrived_bytes - self._paid_bytes)) > 0:
            self._paid_bytes += due_bytes
            await self._active.paced(due_bytes)
        return not self._limited or self._active.bulk

    def limit(self, body: OutsideBody) -> None:
        """Keep the kernel from taking in more than the pace allows for."""
        ahead_bytes = self._active.ahead_bytes
        if ahead_bytes is not None and not self._limited:
            body.limit_buffer(ahead_bytes)
            self._limited = True
