"""Rows 5, 17, 100: the tracker is killed and comes back, was never to be reached, or stays away."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.faults.scene import (
    LINK_MBIT_PER_S,
    Scene,
    assert_frugal,
    assert_no_orphans,
    assert_served,
    assert_verified,
    longest_gap_s,
    reading,
    wait_for_share,
)
from tests.e2e.harness import mirror
from tests.e2e.harness.image import REPOSITORY, Blob, Image
from tests.e2e.harness.lab import Lab
from tests.e2e.harness.p2p import LOOPBACK, PEER_PORT, TRACKER_PORT, Daemon
from tests.e2e.harness.processes import wait_until
from tests.faults.records import recorded

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

AWAY_S: Final = (0, 10, 60) if os.environ.get("P2PDIST_SLOW_FAULTS") == "1" else (0, 10)
# Catalogue, section 7: what the absence of a tracker may cost a new pull, and how soon a new one
# knows the active swarms.
EXTRA_S_MAX: Final = 2.0
KNOWN_AGAIN_S_MAX: Final = 5.0
FIRST_BYTE_S_MAX: Final = 2.0
HOSTS: Final = 6
COPIES_MAX: Final = 2.0
"""Of the layer that leave the proxy; one for each host where they do not find each other."""


@pytest.mark.parametrize("away_s", AWAY_S)
def test_pulls_go_on_while_the_tracker_is_away(scene: Scene, away_s: int) -> None:
    before, running, fresh = (scene.layer(number) for number in range(3))
    with recorded(5, "tracker killed and restarted", f"after {away_s} s") as record:
        peers = [scene.peer(name) for name in ("a", "b")]
        calm = _read_all(peers, before)
        with reading(peers, running) as pulls:
            for peer in peers:
                wait_for_share(peer, running, 0.3, since_bytes=before.size_bytes)
            scene.tracker.kill9()
            killed_s = time.monotonic()
            assert not any(pull.done() for pull in pulls), "the fault came too late to matter"
            if not away_s:
                known_s = _restart(scene.tracker, hosts=len(peers) + 1)
            survived = [pull.result() for pull in pulls]
        without = _read_all(peers, fresh)
        if away_s:
            time.sleep(max(0.0, killed_s + away_s - time.monotonic()))  # the fault itself
            known_s = _restart(scene.tracker, hosts=len(peers) + 1)

        assert_served(record, survived, running)
        assert_served(record, without, fresh)
        extra_s = max(r.seconds for r in without) - max(r.seconds for r in calm)
        assert extra_s <= EXTRA_S_MAX
        assert known_s <= KNOWN_AGAIN_S_MAX
        record.outcome = (
            f"0 of 2 running pulls failed; a new pull took {extra_s:+.1f} s; "
            f"all hosts and swarms known {known_s:.1f} s after the restart"
        )
        assert [peer.page()["fallback_bytes"] for peer in peers] == [{}, {}]
        assert_frugal(record, scene, [before, running, fresh])
        assert_verified(record, scene, peers)
        assert_no_orphans(record, scene, peers[0])


def test_a_pull_needs_no_tracker_from_the_start(scene: Scene) -> None:
    layer = scene.layer(0)
    with recorded(17, "tracker unreachable from the start (DROP)") as record:
        hosts = [scene.host(name) for name in ("a", "b")]
        for host in hosts:
            host.drop_to(scene.core.address, TRACKER_PORT)
        peers = [scene.cluster.start_peer(host) for host in hosts]

        manifest_s = max(_manifest_s(peer) for peer in peers)
        readings = _read_all(peers, layer)

        assert_served(record, readings, layer)
        first_byte_s = max(reading.first_byte_s for reading in readings)
        assert max(manifest_s, first_byte_s) <= FIRST_BYTE_S_MAX
        assert scene.tracker.page()["hosts_connected"] == 1, "a peer reached the tracker"
        record.bytes["proxy"] = scene.proxy.status().sent["peer"]
        record.outcome = (
            f"both clients served through the proxy; manifest in {manifest_s:.2f} s, "
            f"first byte in {first_byte_s:.2f} s, longest silence {longest_gap_s(readings):.2f} s"
        )
        assert [peer.page()["fallback_bytes"] for peer in peers] == [{}, {}]
        upstream_layers = [s for s in scene.registry.served() if s.method == "GET"]
        assert len([s for s in upstream_layers if s.path.endswith(layer.digest)]) == 1
        assert_frugal(record, scene, [layer])
        assert_verified(record, scene, peers)
        assert_no_orphans(record, scene, peers[0])


def test_hosts_that_come_after_its_death_share_what_the_proxy_sends_once(
    lab: Lab, layered: Image, layered_storage: Path
) -> None:
    """The proxy's link is no faster than theirs: on a faster one a proxy that idles helps."""
    scene = Scene(lab, layered, layered_storage, core_mbit_per_s=LINK_MBIT_PER_S)
    layer = scene.layer(0)
    with recorded(100, "hosts come while the tracker is dead", f"{HOSTS} hosts") as record:
        scene.tracker.kill9()
        peers = [scene.peer(f"host{number}") for number in range(HOSTS)]

        readings = _read_all(peers, layer)

        assert_served(record, readings, layer)
        sent_bytes = scene.proxy.status().sent["peer"]
        record.bytes["proxy"] = sent_bytes
        copies = sent_bytes / layer.size_bytes
        slowest_s = max(reading.seconds for reading in readings)
        record.outcome = f"{copies:.2f} copies left the proxy; slowest pull {slowest_s:.1f} s"
        assert copies <= COPIES_MAX
        assert [peer.page()["fallback_bytes"] for peer in peers] == [{}] * HOSTS
        assert_frugal(record, scene, [layer])
        assert_verified(record, scene, peers)
        assert_no_orphans(record, scene, peers[0])


def _read_all(peers: list[Daemon], layer: Blob) -> list[mirror.Reading]:
    with reading(peers, layer) as pulls:
        return [pull.result() for pull in pulls]


def _restart(tracker: Daemon, hosts: int) -> float:
    """Return how long the tracker took from being up to knowing all hosts and an active swarm."""
    tracker.start()
    began_s = time.monotonic()

    def known() -> bool:
        page = tracker.page()
        return bool(page["hosts_connected"] == hosts and page["swarms"]["active"] >= 1)

    wait_until(known, "hosts and swarms at the restarted tracker", log=tracker.process.log)
    return time.monotonic() - began_s


def _manifest_s(peer: Daemon) -> float:
    began_s = time.monotonic()
    status, _ = mirror.get(peer.host, LOOPBACK, PEER_PORT, f"/v2/{REPOSITORY}/manifests/1")
    assert status == 200
    return time.monotonic() - began_s
