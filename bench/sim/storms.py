"""Random fleets with random faults, each held to its invariants after every event."""

from __future__ import annotations

import traceback
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from bench.sim.checking import Checker
from bench.sim.fleet import Fleet
from bench.sim.scenario import Faults, Scenario, UpstreamFaults, Wave
from p2pdist.swarm.core.trace_lines import Line

END_S: Final = 300.0


def storm(seed: int) -> Scenario:
    """A small scenario, as `seed` has it."""
    rng = Random(f"storm {seed}")
    proxies = rng.random() < 0.5
    waves = [
        Wave(
            rng.randint(1, 8),
            within_s=rng.choice([0.0, 0.2, 3.0]),
            reads_mb_per_s=rng.choice([0.0, 0.0, 20.0]),
            leaves=rng.random() < 0.3,
        )
        for _ in range(rng.randint(1, 3))
    ]
    faults = Faults(
        killed=rng.choice([0.0, 0.0, 0.2]),
        slow=rng.choice([0.0, 0.0, 0.2]),
        liars=rng.choice([0.0, 0.0, 0.3]),
        # Without a tracker nobody is named; proxies are known without it.
        tracker_killed_at_s=rng.choice([0.0, 1.2]) if proxies else 0.0,
    )
    fleet = Scenario(
        about=f"storm {seed}",
        waves=waves,
        layers=[rng.choice([1.0, 4.5, 16.0]) for _ in range(rng.randint(1, 3))],
        host_mbit=rng.choice([50.0, 100.0, 1000.0]),
        seed_mbit=rng.choice([50.0, 100.0, 1000.0]),
        seeds=rng.randint(1, 3),
        seed_kind="proxy" if proxies else "peer",
        latency_ms=rng.choice([0.05, 0.25, 5.0]),
        layers_at_once=rng.randint(1, 3),
        faults=faults,
    )
    fleet = _farther(fleet, Random(f"storm {seed}, farther"))
    return _apart(fleet, Random(f"storm {seed}, apart"))


def _farther(fleet: Scenario, rng: Random) -> Scenario:
    """The same with other datacenters, and a registry that fails for a while."""
    fleet = msgspec.structs.replace(
        fleet,
        datacenters=rng.choice([1, 1, 2, 3]),
        wan_mbit=rng.choice([50.0, 1000.0]),
        wan_latency_ms=rng.choice([1.0, 30.0, 150.0]),
    )
    if fleet.seed_kind == "peer" or rng.random() < 0.3:
        return fleet
    some = [0.0, 0.3, 0.8]
    broken = UpstreamFaults(
        errors=rng.choice(some),
        cut=rng.choice(some),
        stalled=rng.choice([0.0, 0.0, 0.3]),
        slow=rng.choice([0.0, 0.0, 0.5]),
        no_ranges=rng.random() < 0.3,
        end_s=rng.choice([0.0, 3.0, 15.0, 40.0]),
    )
    several = fleet.seeds > 1
    faults = msgspec.structs.replace(
        fleet.faults,
        tracker_of_one=rng.random() < 0.5,
        proxy_killed_at_s=rng.choice([0.0, 1.3]) if several else 0.0,
    )
    return msgspec.structs.replace(
        fleet,
        upstream_mbit=rng.choice([50.0, 250.0, 1000.0]),
        upstream_latency_ms=rng.choice([1.0, 40.0]),
        upstream_faults=broken,
        faults=faults,
    )


def _apart(fleet: Scenario, rng: Random) -> Scenario:
    """The same where a datacenter is cut off for a while, and dead trackers may come back."""
    faults, until_s = fleet.faults, rng.choice([2.0, 10.0, 50.0])
    cut_s = rng.choice([0.0, 1.1, 2.0])
    back_s = rng.choice([0.0, 3.0, 20.0])
    if fleet.datacenters > 1 and cut_s:
        faults = msgspec.structs.replace(faults, wan_cut_at_s=cut_s, wan_cut_s=until_s)
    if fleet.seed_kind == "peer" and back_s and rng.random() < 0.5:
        faults = msgspec.structs.replace(faults, tracker_killed_at_s=1.2)
    if faults.tracker_killed_at_s:
        faults = msgspec.structs.replace(faults, tracker_back_s=back_s)
    return msgspec.structs.replace(fleet, faults=faults)


def weather(seed: int) -> str | None:
    """Let the storm of `seed` pass; return what went wrong, None if nothing did."""
    checker, decode = Checker(), msgspec.json.Decoder(Line).decode
    try:
        fleet = Fleet(storm(seed), seed, checks=True, write=lambda line: checker.take(decode(line)))
        finished = fleet.run(end_s=END_S)
    except Exception as error:  # noqa: BLE001 - whatever a core raises, it is of this seed
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{error!r} at {Path(where.filename).name}:{where.lineno}"
    if not finished:
        late = sum(pull.end_s is None and pull.healthy for pull in fleet.pulls)
        return f"{late} healthy hosts had no image after {END_S:.0f} s"
    if checker.faults:
        return f"{len(checker.faults)} faults in its trace, the first: {checker.faults[0]}"
    wrong = sum(host.wrong_accepted for host in fleet.hosts)
    return f"{wrong} wrong chunks were accepted" if wrong else None
