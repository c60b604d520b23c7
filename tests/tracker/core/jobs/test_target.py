"""One host of a job: what it lacks, its state, and the counts over a datacenter."""

from __future__ import annotations

import pytest

from p2pdist.model.control import Delta, SwarmKey
from p2pdist.model.jobs import HostState, JobSpec
from p2pdist.tracker.core.jobs.parts import parts_of
from p2pdist.tracker.core.jobs.target import RATE_SAMPLES, Tally, Target
from p2pdist.tracker.core.swarms import Entry, Host, Swarm
from tests.tracker.core.jobs.fleet import LAYER_BYTES, TAG, blob, image
from tests.tracker.hosts import member

PARTS = parts_of(JobSpec([image()]), "linux/amd64")
LAYER = blob("layer one")


def target(*held: SwarmKey) -> Target:
    """A host with a connection, which holds these parts as a whole."""
    made = Target("h1", "web-1", "dc1", "linux/amd64", 0)
    made.parts, made.host = PARTS, Host(member(1))
    for key in held:
        entry = made.host.entries[key] = Entry(Swarm(key), made.host)
        entry.complete = True
    made.recount()
    return made


def test_what_it_lacks_is_counted_by_parts_and_bytes() -> None:
    assert target().missing_parts == len(PARTS.sizes)
    assert target().missing_bytes == PARTS.total_bytes
    assert target(LAYER, TAG).missing_parts == len(PARTS.sizes) - 2
    assert target(LAYER, TAG).missing_bytes == PARTS.total_bytes - LAYER_BYTES
    assert target(*PARTS.sizes).whole
    assert not target(*list(PARTS.sizes)[1:]).whole


def test_changes_come_to_what_a_recount_finds() -> None:
    made = target()
    assert made.host is not None
    entry = made.host.entries[LAYER] = Entry(Swarm(LAYER), made.host)
    for chunks, complete in ((3, False), (10, False), (10, True), (0, False)):
        before = entry.held_chunks, entry.complete
        lacked = made.missing_bytes
        more = made.changed(LAYER, before, Delta(LAYER, chunks, complete))
        entry.held_chunks, entry.complete = chunks, complete

        counted = made.missing_parts, made.missing_bytes
        assert lacked - more == made.missing_bytes
        assert made.recount() == 0
        assert (made.missing_parts, made.missing_bytes) == counted


def test_a_host_without_a_connection_lacks_everything() -> None:
    made = target(*PARTS.sizes)
    made.host = None

    assert made.recount() == PARTS.total_bytes
    assert not made.whole
    assert made.derive(into_runtime=False) == ("lost", False)


@pytest.mark.parametrize(
    ("proven", "unpacked", "into_runtime", "state"),
    [
        (False, False, False, ("waiting", False)),
        (True, False, False, ("ready", True)),
        (True, False, True, ("ready", False)),
        (True, True, True, ("unpacked", True)),
        (True, True, False, ("ready", True)),
        (False, True, True, ("waiting", False)),
    ],
)
def test_nothing_counts_before_it_is_proven(
    proven: bool, unpacked: bool, into_runtime: bool, state: tuple[HostState, bool]
) -> None:
    made = target(*PARTS.sizes)
    made.proven, made.unpacked = proven, unpacked

    assert made.derive(into_runtime=into_runtime) == state


def test_a_proof_does_not_stand_for_what_is_lost_since() -> None:
    made = target(*list(PARTS.sizes)[1:])
    made.proven = made.opened = True

    assert made.derive(into_runtime=False) == ("fetching", False)


def test_a_host_that_failed_is_ready_all_the_same_once_it_has_it() -> None:
    made = target()
    made.opened = made.final = True
    assert made.derive(into_runtime=False) == ("failed", False)

    whole = target(*PARTS.sizes)
    whole.final = whole.proven = True
    assert whole.derive(into_runtime=False) == ("ready", True)
    assert whole.derive(into_runtime=True) == ("failed", False), "not in its runtime"


def test_a_tally_moves_hosts_from_state_to_state() -> None:
    tally = Tally()
    tally.move(None, "waiting")
    tally.move(None, "waiting")
    tally.move("waiting", "ready")

    assert tally.counts == {"waiting": 1, "ready": 1}


def test_the_rate_is_that_of_the_last_samples_only() -> None:
    tally = Tally()
    tally.missing_bytes = 100
    tally.sample(0.0)
    assert (tally.rate, tally.eta_s) == (0.0, None)

    for second in range(1, 50):
        tally.received_bytes += 1000 if second < 50 - RATE_SAMPLES else 10
        tally.sample(float(second))
    assert tally.rate == 10
    assert tally.eta_s == 10
    tally.missing_bytes = 0
    assert tally.eta_s == 0


def test_samples_of_one_moment_are_no_rate() -> None:
    tally = Tally()
    tally.sample(1.0)
    tally.received_bytes = 5
    tally.sample(1.0)

    assert tally.rate == 0
