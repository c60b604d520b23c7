from __future__ import annotations

import pytest

from p2pdist.tracker.core.shares import KEYS_PER_HOST_MAX, KEYS_SURE, KeyLimits, admits, units_of

LIMITS = KeyLimits()


class Table:
    """Counts as the tracker does; every key is a swarm of its own, the dearest case."""

    def __init__(self, limits: KeyLimits = LIMITS) -> None:
        self.held: dict[str, int] = {}
        self._limits = limits

    @property
    def units(self) -> int:
        keys = sum(self.held.values())
        return units_of(keys, keys)

    def say(self, host: str, keys: int) -> int:
        """Have `host` announce so many more; return how many it has then."""
        held, units = self.held.get(host, 0), self.units
        hosts = len(self.held | {host: 0})
        for _ in range(keys):
            if not admits(self._limits, units=units, hosts=hosts, held=held, new_swarm=True):
                break
            held, units = held + 1, units + units_of(1, 1)
        self.held[host] = held
        return held


def test_a_host_alone_may_have_what_a_store_holds() -> None:
    assert Table().say("a", 20_000) == KEYS_PER_HOST_MAX


def test_forged_hosts_leave_room_for_honest_ones() -> None:
    """They used to fill the table: whoever came after them could announce nothing."""
    table = Table()
    for number in range(300):
        table.say(f"rogue{number}", 20_000)
    assert table.units > LIMITS.units_max * 0.5

    honest = [table.say(f"honest{number}", 500) for number in range(500)]

    assert min(honest) >= KEYS_SURE
    assert table.units <= LIMITS.units_max


def test_few_that_have_much_leave_others_an_even_share() -> None:
    table = Table()
    for number in range(30):
        table.say(f"big{number}", 20_000)

    assert table.say("small", 1000) == 1000


@pytest.mark.parametrize("hosts", [1, 50, 5000])
def test_the_limit_holds_whoever_comes(hosts: int) -> None:
    table = Table(KeyLimits(units_max=10_000, keys_per_host_max=500, keys_sure=3))
    for number in range(hosts):
        table.say(str(number), 1000)

    assert table.units <= 10_000


def test_a_shared_key_costs_no_swarm() -> None:
    limits = KeyLimits(units_max=10, keys_sure=5)

    assert admits(limits, units=9, hosts=1, held=0, new_swarm=False)
    assert not admits(limits, units=9, hosts=1, held=0, new_swarm=True)
