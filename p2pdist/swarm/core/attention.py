"""At which neighbours to look when there is something to plan.

What happened at a neighbour gives it room, or something to be asked for; the others have changed
little since they were looked at. So each plan looks at those of which something was heard, and in
turn at a few more: of them time alone makes better ones (a pause that is over, a request of another
blob that was answered), and where little may be on the way they compete for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from p2pdist.model.ids import HostId

TURN: Final = 3
"""So many more each time. Twenty-four neighbours have had their turn after eight plans."""


class Attention:
    """Pure. Cost per event: O(1); a proxy that still reads a blob has its whole datacenter for
    neighbours."""

    def __init__(self) -> None:
        self._turns: OrderedDict[HostId, None] = OrderedDict()  # all; whose turn it is comes first
        self._called: dict[HostId, None] = {}  # in the order in which something was heard of them
        self._all = False

    def came(self, host: HostId) -> None:
        """It is a neighbour now, if it was none."""
        self._turns.setdefault(host)

    def left(self, host: HostId) -> None:
        """It is none any more; what it was asked for may be asked of all others."""
        self._turns.pop(host, None)
        self._called.pop(host, None)
        self._all = True

    def clear(self) -> None:
        """Nobody is a neighbour any more."""
        self._turns.clear()
        self._called.clear()

    def call(self, host: HostId) -> None:
        """Something was heard of it; who is no neighbour is not looked at."""
        if host in self._turns:
            self._called[host] = None

    def call_all(self) -> None:
        """Something changed for all of them."""
        self._all = True

    def take(self) -> Iterable[HostId]:
        """At whom to look now; each is named once."""
        if self._all or len(self._turns) <= TURN:
            self._all = False
            self._called.clear()
            return tuple(self._turns)
        looked, self._called = self._called, {}
        for _ in range(TURN):
            turn = next(iter(self._turns))
            looked[turn] = None
            self._turns.move_to_end(turn)
        return looked

    def validate(self, neighbours: Iterable[HostId]) -> None:
        """Assert that exactly these have their turn."""
        assert sorted(self._turns) == sorted(neighbours)
        assert self._called.keys() <= set(self._turns)
