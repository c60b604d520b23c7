"""Blobs that nobody has yet: proxies read them from a registry, once for all datacenters."""

from __future__ import annotations

import msgspec
import pytest

from bench.sim.fleet import Fleet
from bench.sim.report import outcome
from bench.sim.scenario import Scenario, UpstreamFaults, Wave
from p2pdist.model.members import Role

COLD = Scenario(
    about="a test",
    waves=[Wave(12, within_s=0.2)],
    layers=[16.0, 4.5],
    host_mbit=1000,
    seed_mbit=1000,
    upstream_mbit=250,
)
WAN = msgspec.structs.replace(COLD, datacenters=3, seed_mbit=10_000, upstream_mbit=1000)


def ran(scenario: Scenario, seed: int = 1) -> Fleet:
    """A fleet that has run, held to its cores' invariants after every event."""
    fleet = Fleet(scenario, seed, checks=True)
    assert fleet.run(end_s=120)
    return fleet


def read_from_upstream(fleet: Fleet) -> int:
    assert fleet.upstream is not None
    return fleet.upstream.lane.bytes_total


@pytest.mark.parametrize("proxies", [1, 3])
def test_a_cold_image_is_read_once_signed_sealed_and_spread(proxies: int) -> None:
    fleet = ran(msgspec.structs.replace(COLD, seeds=proxies))

    assert read_from_upstream(fleet) == COLD.size_bytes
    for pull in fleet.pulls:
        assert all(pull.host.core.blobs[blob.digest].complete for blob in fleet.blobs)
        assert pull.took_s is not None
        assert 0.9 < pull.took_s / fleet.limit_s() < 1.6
    assert fleet.limit_s() == pytest.approx(COLD.size_bytes / (250e6 / 8))


def test_a_host_that_is_alone_gets_what_it_was_the_first_to_want() -> None:
    fleet = ran(msgspec.structs.replace(COLD, waves=[Wave(1)]))

    assert read_from_upstream(fleet) == COLD.size_bytes
    (pull,) = fleet.pulls
    assert pull.took_s is not None
    assert pull.took_s / fleet.limit_s() < 1.2


def test_the_hashes_come_in_batches_as_the_body_does() -> None:
    """The first chunk is vouched for at once, the seal comes when all of it has come."""
    fleet = Fleet(msgspec.structs.replace(COLD, layers=[16.0]), 1)
    proxy, peer = fleet.seeds[0].core.blobs, fleet.pulls[0].host.core.blobs
    digest = fleet.blobs[0].digest

    assert fleet.clock.run(lambda: digest in peer and bool(peer[digest].held), end_s=60)
    chunk_map = proxy[digest].map
    assert chunk_map is not None
    assert 1 <= chunk_map.known.bits.bit_count() < 64
    assert not proxy[digest].complete

    assert fleet.run(end_s=60)
    assert proxy[digest].complete


def test_a_datacenter_gets_what_another_one_has_or_reads_once_over_their_link() -> None:
    fleet = ran(WAN)
    figures = outcome("wan", fleet, finished=True, cpu_s=1.0, peak_mb=1.0).figures

    assert read_from_upstream(fleet) == WAN.size_bytes
    assert figures["upstream"] == 1.0
    into = sorted(home.into.bytes_total / WAN.size_bytes for home in fleet.datacenters)
    assert into[1] >= 1.0
    assert into[2] <= 1.1
    assert figures["cross_dc"] == into[2]


def test_peers_know_peers_of_their_own_datacenter_alone() -> None:
    fleet = ran(WAN)

    for host in fleet.hosts:
        for link in host.links.values():
            far = link.state.member.place.dc != host.member.place.dc
            roles = {host.member.role, link.state.member.role}
            assert not far or roles == {Role.PROXY}
    linked = [link for seed in fleet.seeds for link in seed.links.values()]
    assert any(link.state.member.role is Role.PROXY for link in linked)


def test_trackers_decide_together_who_reads_the_registry() -> None:
    """One of them has the lease of each blob; it is given back, wherever it was asked for."""
    fleet = ran(WAN)
    fleet.clock.run(lambda: False, end_s=fleet.clock.now_s + 1.0)

    cores = [home.tracker.core for home in fleet.datacenters]
    assert sum(len(core.leases) for core in cores) == 0
    # Of each datacenter for each blob, and of all of them.
    granted = sum(core.counters.leases_granted_total for core in cores)
    assert granted >= len(WAN.layers) * (len(cores) + 1)


def test_a_proxy_that_dies_as_it_reads_is_followed_by_another_one() -> None:
    scenario = msgspec.structs.replace(COLD, seeds=2, layers=[16.0], waves=[Wave(6)])
    fleet = Fleet(scenario, 1, checks=True)
    digest = fleet.blobs[0].digest
    owner = next(s for s in fleet.seeds if s.host_id == fleet.datacenters[0].owner(digest))
    fleet.clock.at(1.2, lambda: fleet.kill(owner))

    assert fleet.run(end_s=60)
    assert read_from_upstream(fleet) <= 2 * scenario.size_bytes


def test_links_between_datacenters_are_shared_and_shrink_with_the_rest() -> None:
    shrunk = WAN.shrunk(0.25)
    assert (shrunk.wan_mbit, shrunk.upstream_mbit) == (2500, 250)
    assert Fleet(shrunk, 1).limit_s() == pytest.approx(Fleet(WAN, 1).limit_s())

    narrow = msgspec.structs.replace(WAN, wan_mbit=100)
    fleet = ran(narrow)
    limit_s = WAN.size_bytes / (100e6 / 8)
    assert fleet.limit_s() == pytest.approx(limit_s)
    assert max(p.took_s or 0.0 for p in fleet.pulls) >= limit_s
    assert min(p.took_s or 0.0 for p in fleet.pulls) < limit_s / 2, "the reader's own waited too"


FAILING = {
    "errors": UpstreamFaults(errors=0.9, end_s=12.0),
    "bodies that break off": UpstreamFaults(cut=0.9, end_s=12.0),
    "bodies that stand still": UpstreamFaults(stalled=0.7, end_s=30.0),
    "slow bodies": UpstreamFaults(slow=1.0, end_s=3.0),
    "no ranges": UpstreamFaults(cut=0.7, no_ranges=True, end_s=12.0),
}


@pytest.mark.parametrize("faults", FAILING.values(), ids=FAILING.keys())
@pytest.mark.parametrize("datacenters", [1, 2])
def test_a_registry_that_fails_for_a_while_keeps_nobody_from_it(
    faults: UpstreamFaults, datacenters: int
) -> None:
    scenario = msgspec.structs.replace(
        COLD, waves=[Wave(4)], datacenters=datacenters, upstream_faults=faults
    )
    fleet = ran(scenario)

    assert fleet.upstream is not None
    assert fleet.upstream.faulty > 0
    for pull in fleet.pulls:
        assert all(pull.host.core.blobs[blob.digest].complete for blob in fleet.blobs)


def test_what_a_proxy_gave_up_is_begun_again_for_whoever_starves() -> None:
    """All tries are in vain and the tracker is dead: nobody but a reader asks again."""
    faults = UpstreamFaults(errors=1.0, end_s=20.0)
    scenario = msgspec.structs.replace(COLD, waves=[Wave(2)], seeds=2, upstream_faults=faults)
    fleet = Fleet(scenario, 1, checks=True)
    fleet.clock.at(1.1, fleet.datacenters[0].tracker.stop)
    proxies = [seed.core.blobs for seed in fleet.seeds]

    def given_up() -> bool:
        return any(blob.failure is not None for blobs in proxies for blob in blobs.values())

    assert fleet.clock.run(given_up, end_s=60)
    assert fleet.run(end_s=60)
    for pull in fleet.pulls:
        assert all(pull.host.core.blobs[blob.digest].complete for blob in fleet.blobs)
