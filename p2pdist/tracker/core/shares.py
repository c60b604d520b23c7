"""How many keys a host may have at the tracker, so that the few who say much leave room for all.

Whoever knows the cluster secret can be any number of hosts: 163 of them, each with all the keys it
may have, used to fill the table for everybody and take 2.5 GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# A unit is about 0.27 KB: an entry takes one, and a swarm of its own four more.
UNITS_PER_ENTRY: Final = 1
UNITS_PER_SWARM: Final = 4
# 0.8 GB at most. 30,000 hosts with 64 blobs each, which they share, take two thirds of it.
UNITS_MAX: Final = 3_000_000
# 12,288 blobs are several times what a 50 GB store of usual layers holds.
KEYS_PER_HOST_MAX: Final = 12_288
# What any host gets as long as there is a unit left: what a host of those 30,000 holds.
KEYS_SURE: Final = 64


@dataclass(frozen=True, slots=True)
class KeyLimits:
    units_max: int = UNITS_MAX
    keys_per_host_max: int = KEYS_PER_HOST_MAX
    keys_sure: int = KEYS_SURE


def units_of(entries: int, swarms: int) -> int:
    return entries * UNITS_PER_ENTRY + swarms * UNITS_PER_SWARM


def admits(limits: KeyLimits, *, units: int, hosts: int, held: int, new_swarm: bool) -> bool:
    """A host that has `held` keys may have one more, where all `hosts` with keys take `units`.

    The first half of the units is for whoever comes. In the next quarter each host may go as far
    as an even share of the first half would take it; the last one is for the first `keys_sure`
    keys of hosts that have fewer.
    """
    cost = units_of(1, int(new_swarm))
    if held >= limits.keys_per_host_max or units + cost > limits.units_max:
        return False
    half = limits.units_max // 2
    if units + cost <= half:
        return True
    if held < limits.keys_sure:
        return True
    even = half // max(1, hosts) // units_of(1, 1)
    return held < even and units + cost <= half + half // 2
