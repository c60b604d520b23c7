"""Rows 15 and 35: the peer that a client's peer reads from falls silent, its connections open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from tests.e2e.faults.scene import (
    Scene,
    assert_frugal,
    assert_no_orphans,
    assert_served,
    assert_verified,
    longest_gap_s,
    read,
    reading,
    wait_for_share,
)
from tests.e2e.harness.p2p import Daemon
from tests.faults.records import FaultRecord, recorded

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

# Catalogue, section 7: a peer that is gone without a word is found by the progress deadline.
DETECTED_S_MAX: Final = 3.0


def test_a_stopped_peer_is_given_up_for_another_source(scene: Scene) -> None:
    with recorded(15, "serving peer stopped (SIGSTOP), connections open") as record:
        _silence_in_mid_transfer(scene, record, Daemon.pause)


def test_a_peer_that_vanished_without_a_word_is_given_up(scene: Scene) -> None:
    with recorded(35, "serving peer vanishes without FIN (DROP both ways)") as record:
        _silence_in_mid_transfer(scene, record, lambda peer: peer.host.unplug())


def _silence_in_mid_transfer(
    scene: Scene, record: FaultRecord, silence: Callable[[Daemon], None]
) -> None:
    layer = scene.layer(0)
    seed, victim = scene.peer("seed"), scene.peer("victim")
    read(seed, layer)
    before = seed.status()

    with reading([victim], layer) as pulls:
        wait_for_share(victim, layer, 0.3)
        assert seed.status().sent["peer"] > before.sent["peer"], "the victim reads from elsewhere"
        silence(seed)
        assert not pulls[0].done(), "the fault came too late to matter"
        readings = [pull.result() for pull in pulls]

    gap_s, page = longest_gap_s(readings), victim.page()
    assert_served(record, readings, layer)
    assert gap_s <= DETECTED_S_MAX
    assert page["fallback_bytes"] == {}, "the swarm itself found another source"
    record.retries = page["stalls"] + page["hedges"]
    record.bytes["proxy"] = page["bytes_received"]["proxy"]
    record.outcome = f"client served; longest silence {gap_s:.2f} s of {readings[0].seconds:.1f} s"
    assert_frugal(record, scene, [layer])
    assert_verified(record, scene, [victim])
    assert_no_orphans(record, scene, victim)
