"""Random fleets with random faults, each held to its invariants after every event."""

from __future__ import annotations

from random import Random
from typing import Final

import msgspec

from bench.sim.checking import Checker
from bench.sim.fleet import Fleet
from bench.sim.scenario import Faults, Scenario, Wave
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
    return Scenario(
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


def weather(seed: int) -> str | None:
    """Let the storm of `seed` pass; return what went wrong, None if nothing did."""
    checker, decode = Checker(), msgspec.json.Decoder(Line).decode
    try:
        fleet = Fleet(storm(seed), seed, checks=True, write=lambda line: checker.take(decode(line)))
        if not fleet.run(end_s=END_S):
            late = sum(pull.end_s is None and pull.healthy for pull in fleet.pulls)
            return f"{late} healthy hosts had no image after {END_S:.0f} s"
    except AssertionError as error:
        return f"an invariant broke: {error or error.__traceback__}"
    if checker.faults:
        return f"{len(checker.faults)} faults in its trace, the first: {checker.faults[0]}"
    wrong = sum(host.wrong_accepted for host in fleet.hosts)
    return f"{wrong} wrong chunks were accepted" if wrong else None
