"""Small fleets of the daemons' own cores: each host gets all of it, and a seed has one course."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import bench.sim
from bench.sim.fleet import Fleet
from bench.sim.hosts import Costs
from bench.sim.report import GOALS, curves, floor_ratio, line, outcome, targets
from bench.sim.scenario import Faults, Scenario, Wave, load, names
from bench.sim.storms import storm, weather
from p2pdist.control.core.state import ControlCore
from p2pdist.swarm.core.host import HostCore
from p2pdist.tracker.core.state import TrackerCore

SMALL = Scenario(
    about="a test",
    waves=[Wave(12, within_s=0.2)],
    layers=[16.0, 4.5],
    host_mbit=1000,
    seed_mbit=1000,
)
TRACE = """
from bench.sim.fleet import Fleet
from bench.sim.storms import storm
from tests.sim.test_fleet import FAR_STORM, SMALL
for scenario in (SMALL, storm(FAR_STORM)):
    fleet = Fleet(scenario, 3)
    assert fleet.run(end_s=300)
    print(fleet.trace.hexdigest())
"""
FAR_STORM = 3
"""It has two datacenters and a registry that fails."""


def ran(scenario: Scenario, seed: int = 1) -> Fleet:
    """A fleet that has run, held to its cores' invariants after every event."""
    fleet = Fleet(scenario, seed, checks=True)
    assert fleet.run(end_s=120)
    return fleet


@pytest.mark.parametrize("kind", ["proxy", "peer"])
def test_every_host_gets_all_of_it_and_the_seed_sends_it_about_once(kind: str) -> None:
    seeds = 1
    fleet = ran(msgspec.convert({**msgspec.to_builtins(SMALL), "seed_kind": kind}, Scenario))

    for pull in fleet.pulls:
        assert pull.end_s is not None
        for blob in fleet.blobs:
            assert pull.host.core.blobs[blob.digest].complete
    assert fleet.upstream is None
    copies = sum(seed.card.up.bytes_total for seed in fleet.seeds) / SMALL.size_bytes
    assert 1.0 <= copies / seeds < 3.0
    assert sum(host.wasted_bytes for host in fleet.hosts) <= 0.02 * 12 * SMALL.size_bytes


def test_a_map_in_many_records_parts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """All neighbours pass all of them on while the disk still takes the first ones."""
    parted: list[object] = []
    monkeypatch.setattr(Fleet, "_cut", lambda fleet, host, other: parted.append(other))
    monkeypatch.setattr("p2pdist.swarm.core.statements.WAITING_MAX", 100)
    costs = Costs(disk_s=0.02)

    fleet = Fleet(msgspec.structs.replace(SMALL, chunks_per_record=1), 1, costs=costs, checks=True)

    assert fleet.run(end_s=120)
    assert parted == []


def test_hosts_of_one_machine_share_its_cores() -> None:
    """Each gets an eighth of what its link carries."""
    link_gb_per_s = SMALL.host_mbit / 8e3
    shared = msgspec.structs.replace(SMALL, cores=12.0, cpu_s_per_gb=8 / link_gb_per_s)
    took = max(pull.took_s or 0.0 for pull in ran(shared).pulls)

    least_s = 8 * SMALL.size_bytes / 1e9 / link_gb_per_s
    assert least_s <= took <= 1.5 * least_s


def test_one_seed_has_one_course_whatever_strings_hash_to() -> None:
    traces = set()
    for hash_seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-c", TRACE],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        traces.add(told.stdout)
    assert len(traces) == 1

    other = Fleet(SMALL, 4)
    assert other.run(end_s=60)
    assert other.trace.hexdigest() not in traces.pop().split()
    assert storm(FAR_STORM).datacenters > 1
    assert storm(FAR_STORM).upstream_faults.errors > 0


def test_liars_are_left_and_nothing_wrong_is_taken() -> None:
    fleet = ran(msgspec.structs.replace(SMALL, faults=Faults(liars=0.25)))

    assert sum(host.wrong_accepted for host in fleet.hosts) == 0
    assert sum(host.core.trust.bans_total for host in fleet.hosts) > 0
    assert sum(pull.healthy for pull in fleet.pulls) == 9


def test_hosts_that_die_and_a_dead_tracker_keep_nobody_from_it() -> None:
    faults = Faults(killed=0.25, slow=0.1, tracker_killed_at_s=1.1)
    fleet = ran(msgspec.structs.replace(SMALL, faults=faults))

    assert not fleet.datacenters[0].tracker.alive
    assert sum(not host.alive for host in fleet.hosts) <= 3


def test_who_leaves_with_the_image_takes_no_wait_of_others_along() -> None:
    leaving = msgspec.structs.replace(SMALL, waves=[Wave(12, within_s=1.0, leaves=True)])
    fleet = ran(leaving)

    assert all(pull.end_s is not None for pull in fleet.pulls)


def test_a_reader_at_a_rate_ends_when_that_says() -> None:
    slow = msgspec.structs.replace(SMALL, waves=[Wave(2, reads_mb_per_s=10.0)], layers=[16.0])
    fleet = ran(slow)

    for pull in fleet.pulls:
        assert pull.took_s == pytest.approx(16 * 1.048576 / 10.0, abs=0.3)


def test_a_shrunk_scenario_has_the_same_limit_in_fewer_chunks() -> None:
    scenario = msgspec.structs.replace(SMALL, layers=[32.0], host_mbit=100, seed_mbit=100)
    shrunk = scenario.shrunk(0.5)
    fleet = ran(shrunk)

    assert fleet.limit_s() == pytest.approx(Fleet(scenario, 1).limit_s())
    assert shrunk.byte_stands_for == 2.0
    assert fleet.blobs[0].geometry.chunk_count == 64
    for pull in fleet.pulls:
        assert pull.took_s is not None
        assert 1.0 <= pull.took_s / fleet.limit_s() < 1.6


# --- scenarios ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_each_scenario_is_one_and_has_its_goals(name: str) -> None:
    scenario = load(name)
    assert scenario.about
    assert name in GOALS
    assert scenario.scaled(20).hosts == pytest.approx(20, abs=2)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("about = 1", "about"),
        ('about = ""\nwaves = []\nlayers = [1]\nhost_mbit = 1\nseed_mbit = 1\nhosts = 3', "hosts"),
        ("[", "Invalid"),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused_with_its_reason(
    tmp_path: Path, text: str, what: str
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=what):
        load(str(path))


# --- storms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(1, 13))
def test_a_storm_does_no_harm(seed: int) -> None:
    assert weather(seed) is None


def test_a_storm_is_what_its_seed_says() -> None:
    assert storm(5) == storm(5)
    assert len({storm(seed).about for seed in range(10)}) == 10


def test_storms_are_of_all_kinds() -> None:
    fleets = [storm(seed) for seed in range(1, 101)]
    assert {fleet.datacenters for fleet in fleets} == {1, 2, 3}
    cold = [fleet for fleet in fleets if fleet.upstream_mbit]
    assert 20 < len(cold) < 80
    for fault in ("errors", "cut", "stalled", "slow", "no_ranges"):
        failing = [f for f in cold if getattr(f.upstream_faults, fault) and f.upstream_faults.end_s]
        assert len(failing) >= 5, fault
    for fault in (
        "killed",
        "slow",
        "liars",
        "tracker_killed_at_s",
        "tracker_back_s",
        "proxy_killed_at_s",
        "wan_cut_at_s",
    ):
        assert sum(bool(getattr(f.faults, fault)) for f in fleets) >= 5, fault
    alone = [f for f in fleets if f.faults.proxy_killed_at_s and f.seeds == 1]
    assert not alone, "nobody is left to bring it"


@pytest.mark.parametrize("core", [TrackerCore, HostCore, ControlCore])
def test_every_core_is_held_to_what_must_hold(core: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """... and the first that is not ends the storm, which is told."""

    def broken(_: object) -> None:
        raise AssertionError(f"{core.__name__} is wrong")

    monkeypatch.setattr(core, "validate", broken)

    told = weather(8)
    assert told is not None
    assert f"{core.__name__} is wrong" in told


# --- what is shown --------------------------------------------------------------------------------


def test_a_run_is_shown_beside_its_limit() -> None:
    fleet = ran(SMALL)
    found = outcome("warm", fleet, finished=True, cpu_s=1.0, peak_mb=50.0)

    assert len(found.took) == 12
    assert 1.0 <= found.figures["p50"] <= found.figures["p99"]
    assert floor_ratio(fleet) > 1.0
    assert "12 hosts" in line(found)
    assert {target.name for target in targets(found)} == {
        "sim.warm.p50", "sim.warm.p99", "sim.warm.p999", "sim.warm.seed_copies",
    }  # fmt: skip
    assert curves([found]).count("<polyline") == 1


def test_a_run_that_did_not_finish_met_no_target() -> None:
    fleet = Fleet(SMALL, 1)
    fleet.run(end_s=1.01)
    found = outcome("warm", fleet, finished=False, cpu_s=1.0, peak_mb=50.0)

    assert "NOT FINISHED" in line(found)
    assert not any(target.ok for target in targets(found))


# --- what it is made of ---------------------------------------------------------------------------

WORDS = ("p2pdist.model", "p2pdist.errors", "p2pdist.oci.names")
ALLOWED = (*WORDS, "p2pdist.exchange.codec", "p2pdist.exchange.frames")
SHOWING = {"__main__.py", "report.py"}


def test_a_simulation_imports_cores_and_vocabulary_only() -> None:
    """What it drives must not know that no daemon is around it."""
    directory = Path(bench.sim.__path__[0])
    for path in directory.glob("*.py"):
        if path.name in SHOWING:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("p2pdist"):
                module = f"{node.module}"
                names_ = [f"{module}.{alias.name}" for alias in node.names]
                in_core = ".core" in module
                fits = in_core or any(name.startswith(ALLOWED) for name in (module, *names_))
                assert fits, f"{path.name} imports {module}"
