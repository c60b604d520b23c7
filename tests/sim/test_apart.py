"""A datacenter that is cut off from the others for a while, and trackers that come back."""

from __future__ import annotations

import msgspec

from bench.sim.fleet import Fleet
from bench.sim.scenario import Faults, Scenario, Wave
from p2pdist.model.ids import MapId
from tests.sim.test_cold import WAN, read_from_upstream

BEFORE_S = 1.05
"""The first of them have begun, and nothing has come over that link."""
MIDWAY_S = 1.3


def cut(at_s: float, for_s: float) -> Scenario:
    return msgspec.structs.replace(WAN, faults=Faults(wan_cut_at_s=at_s, wan_cut_s=for_s))


def ran(scenario: Scenario) -> Fleet:
    fleet = Fleet(scenario, 1, checks=True)
    assert fleet.run(end_s=120)
    return fleet


def far_links(fleet: Fleet) -> int:
    """Between the datacenter that is cut off and the others."""
    names = {host.host_id: host.member.place.dc for host in fleet.hosts}
    home = fleet.datacenters[0].name
    here = [host for host in fleet.hosts if names[host.host_id] == home]
    return sum(names[other] != home for host in here for other in host.links)


def maps(fleet: Fleet) -> set[MapId]:
    """Those that hosts which pull hold blobs under."""
    blobs = (blob for pull in fleet.pulls for blob in pull.host.core.blobs.values())
    return {blob.map.map_id for blob in blobs if blob.map is not None}


def test_who_is_cut_off_reads_the_registry_and_waits_for_nobody_outside() -> None:
    fleet = ran(cut(BEFORE_S, 100.0))

    assert WAN.size_bytes < read_from_upstream(fleet) <= 3 * WAN.size_bytes
    assert len(maps(fleet)) > len(fleet.blobs), "each side has made a map of its own"
    assert all(pull.end_s is not None and pull.end_s < BEFORE_S + 30.0 for pull in fleet.pulls)


def test_a_short_cut_costs_its_time_and_no_link() -> None:
    fleet = Fleet(cut(MIDWAY_S, 2.0), 1, checks=True)
    fleet.clock.run(lambda: False, end_s=MIDWAY_S)
    before = far_links(fleet)
    fleet.clock.run(lambda: False, end_s=MIDWAY_S + 2.5)

    assert before > 0
    assert far_links(fleet) >= before
    assert fleet.run(end_s=60)


def test_links_that_stay_silent_are_given_up_and_made_anew() -> None:
    fleet = Fleet(cut(MIDWAY_S, 60.0), 1, checks=True)
    fleet.clock.run(lambda: False, end_s=MIDWAY_S + 45.0)
    assert far_links(fleet) == 0
    assert not fleet.datacenters[0].tracker.core.grants.remotes

    fleet.clock.run(lambda: False, end_s=120)
    others = [home.tracker.core.grants.remotes for home in fleet.datacenters]
    assert [len(remotes) for remotes in others] == [2, 2, 2]


def test_a_tracker_that_comes_back_hears_of_all_hosts_again() -> None:
    away = Faults(tracker_killed_at_s=0.9, tracker_back_s=5.0)
    scenario = Scenario(
        about="a test",
        waves=[Wave(8, within_s=2.0)],
        layers=[4.5],
        host_mbit=1000,
        seed_mbit=1000,
        seeds=2,
        seed_kind="peer",
        faults=away,
    )
    fleet = Fleet(scenario, 1, checks=True)
    (home,) = fleet.datacenters
    fleet.clock.run(lambda: False, end_s=5.8)
    assert not home.tracker.alive

    fleet.clock.run(lambda: False, end_s=15.0)
    assert set(home.tracker.core.hosts) == {host.host_id for host in fleet.hosts}
    assert all(pull.end_s is not None for pull in fleet.pulls)
