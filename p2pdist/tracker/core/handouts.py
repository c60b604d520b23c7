"""Which neighbours a reader is named: the nearest first, the fullest first, chance among equals.

Two shares keep a swarm from falling apart into islands or queueing at its seeds:

- half of a handout comes from the reader's own rack, the rest is drawn from its whole datacenter,
  or racks without a seed would each wait for the proxy;
- at most half of what a place gives are seeds while others there hold something, or the uplinks
  of the readers would lie idle.

Other datacenters are named by their proxies alone, and only to a reader that has nothing nearer:
links between datacenters carry a byte once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from random import Random
from typing import Final

from p2pdist.model.control import HANDOUT_MAX
from p2pdist.model.ids import HostId
from p2pdist.model.rendezvous import ranked
from p2pdist.tracker.core.swarms import ALL_PROXIES, Entry, Host, Pool, Swarm, Tier

# As many ask it in turn, so that a host has about 24 neighbours: BitTorrent clients keep 20 to 50,
# for megabyte pieces and strangers; 24 join any two of 30,000 hosts in four steps.
HANDOUT_SIZE: Final = 12


def owner_of(key: str, proxies: Collection[HostId], exclude: Collection[str]) -> HostId | None:
    """The proxy in charge of `key`: the first by rendezvous hash that is not excluded."""
    order = ranked(key, [proxy for proxy in proxies if proxy not in exclude])
    return HostId(order[0]) if order else None


def choose(
    swarm: Swarm | None,
    reader: Host,
    owner: Host | None,
    exclude: Collection[str],
    rng: Random,
    size: int = HANDOUT_SIZE,
) -> list[Host]:
    """Return up to `size` neighbours for `reader`: the owning proxy, then by distance.

    `owner` is the proxy of the reader's datacenter that is in charge of the swarm's key.
    """
    assert 0 < size <= HANDOUT_MAX
    draw = _Draw(reader, exclude, rng)
    named = draw.take([owner] if owner is not None else [])
    if swarm is None:
        return named
    place = reader.member.place
    wanted = size - len(named)
    rack = draw.fullest(swarm.pool((place.dc, place.rack)), wanted) if place.rack else []
    shared = rack[: (wanted + 1) // 2]
    draw.take(entry.host for entry in shared)
    others = draw.fullest(swarm.pool((place.dc,)), wanted - len(shared))
    near = [*shared, *sorted(others, key=lambda e: e.host.member.place.distance(place))]
    named += [entry.host for entry in near]
    if not (owner in named or any(entry.tier is not Tier.EMPTY for entry in near)):
        named = [*draw.abroad(swarm.pool(ALL_PROXIES), size), *named][:size]
    return named


class _Draw:
    """Draws members that were not drawn before, are not excluded, and are not the reader."""

    def __init__(self, reader: Host, exclude: Collection[str], rng: Random) -> None:
        self._reader = reader
        self._rng = rng
        self._taken = {reader.host_id, *exclude}

    def take(self, hosts: Iterable[Host]) -> list[Host]:
        """Mark `hosts` as drawn; return those that may be named."""
        fresh = [host for host in hosts if host.host_id not in self._taken]
        self._taken.update(host.host_id for host in fresh)
        return fresh

    def fullest(self, pool: Pool | None, count: int) -> list[Entry]:
        """Return up to `count` members of `pool`, seeds first, those without anything last."""
        if pool is None or count <= 0:
            return []
        seeds = self._sample(pool, Tier.COMPLETE, count)
        # The best of twice as many: the fullest without looking at every member.
        partial = self._sample(pool, Tier.PARTIAL, 2 * count)
        partial.sort(key=lambda entry: -entry.held_chunks)
        seed_share = max((count + 1) // 2, count - len(partial))
        holders = [*seeds[:seed_share], *partial][:count]
        if len(holders) < count:
            holders += self._sample(pool, Tier.EMPTY, count - len(holders))
        return holders

    def abroad(self, pool: Pool | None, count: int) -> list[Host]:
        """Proxies of other datacenters that hold something, the fullest first."""
        if pool is None:
            return []
        seeds = self._sample(pool, Tier.COMPLETE, count)
        partial = self._sample(pool, Tier.PARTIAL, count)
        partial.sort(key=lambda entry: -entry.held_chunks)
        home = self._reader.dc
        return [e.host for e in (*seeds, *partial) if e.host.dc != home][:count]

    def _sample(self, pool: Pool, tier: Tier, count: int) -> list[Entry]:
        drawn = pool.sample(tier, count + len(self._taken), self._rng)
        return [entry for entry in drawn if entry.host.host_id not in self._taken][:count]
