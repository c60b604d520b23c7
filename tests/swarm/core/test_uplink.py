"""Who of the seeds of a node has something that nobody has yet."""

from __future__ import annotations

from p2pdist.swarm.core.uplink import Uplink


def test_there_is_time_for_second_copies_when_no_seed_has_first_ones() -> None:
    uplink, one, other = Uplink(), object(), object()
    idle = [uplink.idle]

    for plan, busy in ((one, True), (one, True), (other, True), (one, False), (other, False)):
        uplink.set_busy(plan, busy)
        idle.append(uplink.idle)

    assert idle == [True, False, False, False, False, True]
