"""Whom a proxy names to a reader of one blob: other readers, as it knows them by their links.

A tracker knows more: who holds how much, and hosts that never asked this proxy. Where there is
none, readers that know nobody but the proxy take every byte from it, so it names them each other:
half from the reader's own rack, the rest from its whole datacenter, by chance. Readers in motion
all hold something soon, and their offers say what; so fullness is not looked at.
"""

from __future__ import annotations

from random import Random
from typing import Final

from p2pdist.model.ids import HostId
from p2pdist.model.member_wire import nameable
from p2pdist.model.members import Member, Place

NAMED: Final = 12
"""As many ask it in turn, so that a host has about 24 neighbours, as by a tracker's handouts."""
KNOWN_MAX: Final = 4096
"""2 MB for a blob; any 4096 of a larger swarm are as good as all."""

_PoolKey = tuple[str, ...]


class Acquaintances:
    """Pure: chance enters through `rng`. All costs are independent of how many are known."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._members: dict[HostId, Member] = {}
        self._pools: dict[_PoolKey, _Pool] = {}

    def __len__(self) -> int:
        return len(self._members)

    def met(self, member: Member) -> None:
        """It reads the blob; what was known of it before is replaced."""
        self.gone(member.host_id)
        named = nameable(member)
        if named is None or len(self._members) >= KNOWN_MAX:
            return
        self._members[named.host_id] = named
        for key in _keys(named.place):
            self._pools.setdefault(key, _Pool()).add(named.host_id)

    def gone(self, host: HostId) -> None:
        """Nothing is to be had there."""
        if (member := self._members.pop(host, None)) is None:
            return
        for key in _keys(member.place):
            pool = self._pools[key]
            pool.discard(host)
            if not pool:
                del self._pools[key]

    def others(self, reader: Member) -> tuple[Member, ...]:
        """Up to `NAMED` of its datacenter beside itself, in no order."""
        place, taken = reader.place, {reader.host_id}
        rack = self._draw((place.dc, place.rack), (NAMED + 1) // 2, taken) if place.rack else []
        far = self._draw((place.dc,), NAMED - len(rack), taken)
        return tuple(self._members[host] for host in (*rack, *far))

    def _draw(self, key: _PoolKey, count: int, taken: set[HostId]) -> list[HostId]:
        pool = self._pools.get(key)
        if pool is None:
            return []
        drawn = pool.sample(count + len(taken), self._rng)
        fresh = [host for host in drawn if host not in taken][:count]
        taken.update(fresh)
        return fresh

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        assert len(self._members) <= KNOWN_MAX
        for key, pool in self._pools.items():
            assert pool
            assert set(pool.hosts) == {h for h, m in self._members.items() if key in _keys(m.place)}
            pool.validate()


class _Pool:
    """A set to draw from in O(drawn)."""

    def __init__(self) -> None:
        self.hosts: list[HostId] = []
        self._at: dict[HostId, int] = {}

    def __bool__(self) -> bool:
        return bool(self.hosts)

    def add(self, host: HostId) -> None:
        self._at[host] = len(self.hosts)
        self.hosts.append(host)

    def discard(self, host: HostId) -> None:
        """Put the last one in the gap."""
        at, last = self._at.pop(host), self.hosts.pop()
        if last != host:
            self.hosts[at] = last
            self._at[last] = at

    def sample(self, count: int, rng: Random) -> list[HostId]:
        return rng.sample(self.hosts, min(count, len(self.hosts)))

    def validate(self) -> None:
        assert self._at == {host: at for at, host in enumerate(self.hosts)}


def _keys(place: Place) -> list[_PoolKey]:
    return [(place.dc,), (place.dc, place.rack)] if place.rack else [(place.dc,)]
