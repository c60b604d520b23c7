"""No change makes a fleet slower unseen: small versions of all scenarios stay within bounds."""

from __future__ import annotations

import pytest

from bench.sim.scenario import load, names
from tests.sim.guards import HOSTS, MIB, bounds, figures, smaller

BOUNDS = bounds()


def test_every_scenario_has_bounds() -> None:
    assert sorted(BOUNDS) == names()
    for limits in BOUNDS.values():
        assert {"p50", "p99", "duplicates"} <= limits.keys()


@pytest.mark.parametrize("name", names())
def test_what_is_guarded_is_the_scenario_with_fewer_hosts_and_chunks(name: str) -> None:
    scenario = smaller(load(name))
    assert scenario.hosts == pytest.approx(HOSTS, abs=2)
    assert scenario.size_bytes == round(MIB * (1 << 20))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", names())
def test_a_small_version_of_it_stays_within_its_bounds(name: str) -> None:
    found = figures(name)
    seen = {key: found[key] for key in BOUNDS[name]}
    beyond = {key: figure for key, figure in seen.items() if figure > BOUNDS[name][key]}
    assert not beyond, f"{name}: {beyond} of {seen}, bounds {BOUNDS[name]}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("killed_at_s", "p50_max", "p99_max"),
    [
        pytest.param(0.5, 1.8, 9.3, id="before the first host"),  # 1.51 and 7.76
        pytest.param(1.5, 1.6, 8.2, id="when half of them are there"),  # 1.33 and 6.80
    ],
)
def test_hosts_that_come_when_the_tracker_is_dead_are_not_alone(
    killed_at_s: float, p50_max: float, p99_max: float
) -> None:
    """With nobody to name others each took all of it from the proxy: p50 was 230."""
    found = figures("faults", tracker_killed_at_s=killed_at_s)

    assert found["p50"] <= p50_max
    assert found["p99"] <= p99_max
    assert found["wrong_accepted"] == 0
