from __future__ import annotations

from random import Random

import pytest

from p2pdist.model.control import Delta
from p2pdist.model.members import Role
from p2pdist.tracker.core.shares import KeyLimits
from p2pdist.tracker.core.swarms import ALL_PROXIES, Host, Swarms, Tier
from tests.tracker.hosts import key, member, seed


def test_a_holder_is_in_the_pools_of_its_datacenter_and_rack() -> None:
    swarms, host = Swarms(), Host(member(1, "dc1/r1"))

    swarms.note(host, Delta(key(), 3, False))

    swarm = swarms.get(key())
    assert swarm is not None
    for place in (("dc1",), ("dc1", "r1")):
        pool = swarm.pool(place)
        assert pool is not None
        assert [entry.host for entry in pool.tiers[Tier.PARTIAL]] == [host]
    assert swarm.pool(ALL_PROXIES) is None


def test_a_proxy_is_also_in_the_pool_of_all_proxies() -> None:
    swarms, proxy = Swarms(), Host(member(1, "dc1", Role.PROXY))

    swarms.note(proxy, seed(key()))

    swarm = swarms.get(key())
    assert swarm is not None
    pool = swarm.pool(ALL_PROXIES)
    assert pool is not None
    assert [entry.host for entry in pool.tiers[Tier.COMPLETE]] == [proxy]


def test_a_swarm_ends_with_its_last_member() -> None:
    swarms, host = Swarms(), Host(member(1))
    swarms.note(host, seed(key()))

    swarms.note(host, Delta(key(), 0, False))

    assert swarms.get(key()) is None
    assert swarms.entry_count == 0


def test_a_reader_that_retracts_its_offer_stays_while_it_is_interested() -> None:
    swarms, host = Swarms(), Host(member(1))
    swarms.set_interest(host, key(), True)
    swarms.note(host, Delta(key(), 5, False))

    swarms.note(host, Delta(key(), 0, False))

    swarm = swarms.get(key())
    assert swarm is not None
    assert swarm.size == 1


def test_a_host_may_not_hold_more_keys_than_its_limit() -> None:
    swarms, host = Swarms(KeyLimits(keys_per_host_max=1)), Host(member(1))

    assert swarms.note(host, seed(key("first")))
    assert not swarms.note(host, seed(key("second")))
    assert swarms.note(host, Delta(key("first"), 2, False))


def test_all_hosts_together_may_not_exceed_the_limit() -> None:
    swarms = Swarms(KeyLimits(units_max=5))

    assert swarms.note(Host(member(1)), seed(key()))
    assert not swarms.set_interest(Host(member(2)), key(), True)


def test_a_malformed_key_is_refused() -> None:
    with pytest.raises(ValueError, match="not a digest"):
        Swarms().note(Host(member(1)), Delta("sha256:../../etc", 1, True))


def test_members_that_come_and_go_leave_consistent_pools() -> None:
    rng, swarms = Random(5), Swarms()
    hosts = [Host(member(i, f"dc{i % 2}/r{i % 3}")) for i in range(20)]

    for _ in range(2000):
        held = rng.choice([0, 0, 3, 8])
        swarms.note(rng.choice(hosts), Delta(key(), held, held == 8))

    holders = [host for host in hosts if host.entries]
    assert swarms.entry_count == len(holders)
    swarm = swarms.get(key())
    found = set()
    for dc in ("dc0", "dc1"):
        pool = swarm.pool((dc,)) if swarm else None
        for tier in Tier:
            entries = pool.tiers[tier] if pool else []
            assert all(entry.tier is tier for entry in entries)
            found |= {entry.host.host_id for entry in entries}
    assert found == {host.host_id for host in holders}
