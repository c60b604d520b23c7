from __future__ import annotations

import pytest

from p2pdist.model.control import Announce, Delta
from p2pdist.model.jobs import JobSpec
from p2pdist.model.members import Role
from tests.tracker.core.jobs.fleet import LAYER_BYTES, TAG, UNIX_S, Fleet, blob, image
from tests.tracker.hosts import key

IMAGE_BYTES = 2 * LAYER_BYTES + 1000
EVERYTHING = [
    TAG,
    key("index"),
    key("manifest linux/amd64"),
    *(blob(name) for name in ("config", "layer one", "layer two")),
]


def two_datacenters() -> Fleet:
    """dc1 has a proxy, a host with everything and one with a layer; dc2 has an empty host."""
    fleet = Fleet()
    fleet.add("dc1/p", Role.PROXY)
    full, half = fleet.add(), fleet.add()
    full.held |= set(EVERYTHING)
    full.tell(Announce([Delta(k, 1, True) for k in EVERYTHING]))
    half.tell(Announce([Delta(blob("layer one"), 1, True), Delta(blob("layer two"), 4, False)]))
    fleet.add("dc2/r")
    fleet.run(0.1)
    return fleet


def test_a_plan_counts_what_is_missing_after_what_is_there() -> None:
    fleet = two_datacenters()
    plan = fleet.planner(JobSpec([image()])).plan(UNIX_S)
    one, two = plan.dcs

    lacking = 1000 + LAYER_BYTES - 4 * 256 * 1024
    assert (one.dc, one.hosts, one.ready, one.host_bytes) == ("dc1", 2, 1, lacking)
    assert (one.largest_host_bytes, one.outside_bytes) == (lacking, 0)
    assert (two.dc, two.hosts, two.ready) == ("dc2", 1, 0)
    assert two.outside_bytes == two.host_bytes == IMAGE_BYTES
    assert (plan.needs_s, plan.deadline_holds, plan.warnings) == (None, None, [])


def test_rates_bound_the_time_from_below() -> None:
    fleet = two_datacenters()
    spec = JobSpec([image()], rate=IMAGE_BYTES // 10, dc_rate=IMAGE_BYTES // 30)
    plan = fleet.planner(spec).plan(UNIX_S)

    assert plan.dcs[1].hosts_s == pytest.approx(10, rel=0.01)
    assert plan.dcs[1].link_s == pytest.approx(30, rel=0.01)
    assert plan.needs_s == pytest.approx(30, rel=0.01)


def test_waves_come_one_after_the_other() -> None:
    fleet = Fleet()
    for _ in range(10):
        fleet.add()
    fleet.run(0.1)
    spec = JobSpec([image()], rate=IMAGE_BYTES // 10, waves=[0.1, 0.5, 1.0])

    assert fleet.planner(spec).plan(UNIX_S).needs_s == pytest.approx(30, rel=0.01)


@pytest.mark.parametrize(("left_s", "holds"), [(5.0, False), (40.0, True), (-1.0, False)])
def test_whether_the_deadline_can_hold(left_s: float, holds: bool) -> None:
    fleet = two_datacenters()
    spec = JobSpec([image()], dc_rate=IMAGE_BYTES // 30, deadline_unix_s=UNIX_S + left_s)
    plan = fleet.planner(spec).plan(UNIX_S)

    assert plan.deadline_holds is holds
    assert bool(plan.warnings) is not holds


def test_hosts_that_no_image_is_for_are_named_in_a_warning() -> None:
    fleet = Fleet()
    fleet.add(platform="linux/riscv64")
    fleet.run(0.1)
    plan = fleet.planner(JobSpec([image()])).plan(UNIX_S)

    assert plan.warnings == ["an image has nothing for the platform of 1 of the hosts"]
