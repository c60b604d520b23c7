"""Which hosts a job is for, and in which wave."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.jobs import JobSpec
from p2pdist.tracker.core.jobs.choosing import Chosen, choose_hosts
from p2pdist.tracker.core.selector import Candidate, parse_selector
from tests.tracker.core.jobs.fleet import image

SPEC = JobSpec([image()], waves=[0.1, 0.5, 1.0])


def candidates(count: int, dc: str = "dc1") -> list[Candidate]:
    return [Candidate(f"{dc}-{number:03}", f"web-{number}", {}, dc) for number in range(count)]


def chosen(hosts: list[Candidate], spec: JobSpec = SPEC, job: str = "job") -> list[Chosen]:
    return choose_hosts(job, spec, parse_selector(spec.hosts), hosts)


def test_each_datacenter_has_its_share_of_each_wave() -> None:
    waves = Counter((one.host_id[:3], one.wave) for one in chosen(candidates(20)))
    assert waves == {("dc1", 0): 2, ("dc1", 1): 8, ("dc1", 2): 10}

    both = chosen(candidates(20) + candidates(4, "dc2"))
    waves = Counter((one.host_id[:3], one.wave) for one in both)
    assert waves["dc1", 0] == 2
    assert [waves["dc2", wave] for wave in range(3)] == [1, 1, 2], "a wave has one host at least"


@given(st.integers(1, 60), st.lists(st.sampled_from([0.1, 0.25, 0.5]), unique=True).map(sorted))
def test_everybody_is_in_one_wave_and_waves_come_in_their_order(
    count: int, shares: list[float]
) -> None:
    found = chosen(candidates(count), msgspec.structs.replace(SPEC, waves=[*shares, 1.0]))

    assert sorted(one.host_id for one in found) == [f"dc1-{n:03}" for n in range(count)]
    assert [one.wave for one in found] == sorted(one.wave for one in found)
    for number, share in enumerate(shares):
        begun = sum(one.wave <= number for one in found)
        assert count * share - 1e-6 <= begun < count * share + 1


def test_the_same_job_chooses_the_same_whatever_the_order_and_another_job_others() -> None:
    hosts = candidates(40)

    assert set(chosen(hosts)) == set(chosen(hosts[::-1]))
    assert {one for one in chosen(hosts) if one.wave == 0} != {
        one for one in chosen(hosts, job="other") if one.wave == 0
    }


def test_only_whom_the_selector_names() -> None:
    spec = msgspec.structs.replace(SPEC, hosts="web-1*")

    found = {one.host_id for one in chosen(candidates(20), spec)}

    assert found == {"dc1-001", *(f"dc1-{number:03}" for number in range(10, 20))}


def test_a_proxy_goes_first_unless_there_are_only_proxies() -> None:
    """It brings what the others need."""
    proxies = [Candidate(f"p{number}", f"p{number}", {}, "dc1", proxy=True) for number in range(9)]
    waves = {one.host_id: one.wave for one in chosen(candidates(30) + proxies)}
    assert {waves[proxy.host_id] for proxy in proxies} == {0}

    alone = chosen(proxies, msgspec.structs.replace(SPEC, proxies_only=True))
    assert Counter(one.wave for one in alone) == {0: 1, 1: 4, 2: 4}
