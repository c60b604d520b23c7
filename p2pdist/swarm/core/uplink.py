"""The one uplink of a node, for which the seeds of all its blobs compete."""

from __future__ import annotations


class Uplink:
    """What the seed plans of one node share: who of them has chunks to send that nobody has yet."""

    def __init__(self) -> None:
        self._busy: set[object] = set()

    def set_busy(self, plan: object, busy: bool) -> None:
        (self._busy.add if busy else self._busy.discard)(plan)

    @property
    def idle(self) -> bool:
        """Nobody has: there is time for second copies."""
        return not self._busy
