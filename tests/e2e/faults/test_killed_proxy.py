"""Row 4: the proxy is killed, with and without the blob being in the swarm already."""

from __future__ import annotations

import time
from typing import Final

import pytest

from tests.e2e.faults.scene import (
    GAP_S_MAX,
    Scene,
    assert_no_orphans,
    assert_served,
    assert_verified,
    longest_gap_s,
    read,
    reading,
    wait_for_share,
)
from tests.e2e.harness.processes import wait_until
from tests.faults.records import recorded

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

TAKEN_OVER_S_MAX: Final = 3.0
UPSTREAM_RATIO_MAX: Final = 1.1
AWAY_S: Final = 3.0
# To start, to hash what it has, and for the peers to dial again: they try every 5 s at least.
BACK_S_MAX: Final = 8.0


def test_upstream_takes_over_from_a_proxy_killed_in_mid_fetch(slow_upstream: Scene) -> None:
    scene = slow_upstream
    layer = scene.layer(0)
    with recorded(4, "proxy killed", "in mid upstream fetch") as record:
        peer = scene.cluster.start_peer(scene.host("a", reaches_registry=True))
        with reading([peer], layer) as pulls:
            wait_for_share(peer, layer, 0.3)
            scene.proxy.kill9()
            readings = [pull.result() for pull in pulls]

        assert_served(record, readings, layer)
        gap_s, status = longest_gap_s(readings), peer.status()
        assert gap_s <= TAKEN_OVER_S_MAX
        wait_until(lambda: len(scene.registry.served()) >= 2, "both answers in the registry's log")
        upstream_bytes = scene.registry.payload_bytes()
        record.bytes |= {"upstream": upstream_bytes, "taken over": status.received["upstream"]}
        record.retries = 1
        record.outcome = f"client served; upstream took over after {gap_s:.2f} s"
        assert upstream_bytes <= UPSTREAM_RATIO_MAX * layer.size_bytes
        record.invariants.append("I5")
        assert_verified(record, scene, [scene.proxy, peer])
        assert_no_orphans(record, scene, scene.proxy)


def test_a_proxy_that_is_back_goes_on_where_it_was_cut(slow_upstream: Scene) -> None:
    """There is no other source: what it had fetched it keeps, and the client's one GET goes on."""
    scene = slow_upstream
    layer = scene.layer(0)
    with recorded(4, "proxy killed", "in mid upstream fetch, restarted after 3 s") as record:
        peers = [scene.peer(name) for name in ("a", "b")]
        with reading(peers, layer) as pulls:
            wait_for_share(peers[0], layer, 0.3)
            scene.proxy.kill9()
            time.sleep(AWAY_S)  # the fault itself, not a wait for anything
            scene.proxy.start()
            readings = [pull.result() for pull in pulls]

        assert [reading.blob for reading in readings] == [layer, layer]
        gap_s = longest_gap_s(readings)
        assert gap_s <= AWAY_S + BACK_S_MAX
        record.invariants.append("I2")
        wait_until(lambda: len(scene.registry.served()) >= 2, "both answers in the registry's log")
        record.bytes["upstream"] = scene.registry.payload_bytes()
        record.retries = 1
        record.outcome = f"both clients served in one GET; longest silence {gap_s:.2f} s"
        assert record.bytes["upstream"] <= UPSTREAM_RATIO_MAX * layer.size_bytes
        record.invariants.append("I5")
        assert_verified(record, scene, [scene.proxy, *peers])
        assert_no_orphans(record, scene, scene.proxy)


def test_a_blob_in_the_swarm_needs_no_proxy(scene: Scene) -> None:
    layer = scene.layer(0)
    with recorded(4, "proxy killed", "blob in the swarm") as record:
        seed, *peers = [scene.peer(name) for name in ("seed", "a", "b")]
        read(seed, layer)
        with reading(peers, layer) as pulls:
            wait_for_share(peers[0], layer, 0.3)
            scene.proxy.kill9()
            assert not any(pull.done() for pull in pulls), "the fault came too late to matter"
            readings = [pull.result() for pull in pulls]

        assert_served(record, readings, layer)
        assert longest_gap_s(readings) <= GAP_S_MAX
        pages = [peer.page() for peer in peers]
        assert [page["fallback_bytes"] for page in pages] == [{}, {}]
        record.retries = sum(page["stalls"] + page["hedges"] for page in pages)
        record.bytes["from peers"] = sum(p.status().received_from_peers_bytes for p in peers)
        record.outcome = f"both clients served; longest silence {longest_gap_s(readings):.2f} s"
        assert_verified(record, scene, [scene.proxy, *peers])
        assert_no_orphans(record, scene, peers[0])
