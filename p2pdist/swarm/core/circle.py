"""With which peers one blob is exchanged: some dozens of a swarm of thousands.

Every neighbour costs an offer each way per batch, so that a host with all others for neighbours
would pay for the size of the swarm. A host asks the dozen that the tracker names, and is asked by
as many on the average; the first ones of a swarm are asked by far more, who are turned away here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from p2pdist.model.ids import HostId
from p2pdist.model.members import Distance

# Twice the mean of a swarm in which each host asks `HANDOUT_SIZE` others.
CIRCLE_MAX: Final = 48
# Who neither gave nor took anything for so long makes room for others.
IDLE_S: Final = 10.0


class Admission(NamedTuple):
    admitted: bool
    instead_of: HostId | None = None
    """Exchange nothing with this one any more."""


@dataclass(slots=True)
class _Member:
    distance: Distance
    used_s: float


class Circle:
    """Pure. Proxies are in nobody's circle, and have none: they serve whoever asks."""

    def __init__(self, size_max: int = CIRCLE_MAX) -> None:
        self._size_max = size_max
        self._members: dict[HostId, _Member] = {}

    def __len__(self) -> int:
        return len(self._members)

    def admit(self, host: HostId, distance: Distance, now_s: float) -> Admission:
        """Take `host` in if there is room, or if somebody is of no use: the farthest of them goes.

        Costs a look at each member, but only where the circle is full.
        """
        if host in self._members:
            return Admission(True)
        instead_of = None
        if len(self._members) >= self._size_max:
            idle = [h for h, m in self._members.items() if now_s - m.used_s >= IDLE_S]
            if not idle:
                return Admission(False)
            instead_of = max(idle, key=lambda h: (self._members[h].distance, h))
            del self._members[instead_of]
        self._members[host] = _Member(distance, now_s)
        return Admission(True, instead_of)

    def used(self, host: HostId, now_s: float) -> None:
        """It gave us a chunk or asked for one."""
        if (member := self._members.get(host)) is not None:
            member.used_s = now_s

    def validate(self, peers: Iterable[HostId]) -> None:
        """Assert that the blob is exchanged with its members alone, and with no more than may be;
        for tests and simulations."""
        assert self._members.keys() >= set(peers)
        assert len(self._members) <= self._size_max

    def left(self, host: HostId) -> None:
        self._members.pop(host, None)
