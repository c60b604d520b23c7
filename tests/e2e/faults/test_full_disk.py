"""Row 6: the disk of the reading peer is full, from the start or in the middle of a blob."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from p2pdist.store.ports import RESERVE_FREE_BYTES
from tests.e2e.faults.conftest import LAYER_BYTES
from tests.e2e.faults.scene import (
    Scene,
    assert_frugal,
    assert_no_orphans,
    assert_served,
    assert_verified,
    failing,
    longest_gap_s,
    read,
)
from tests.faults.records import recorded

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CHUNKS: Final = 153
# Room for one layer above what the store leaves to the rest of the host, but not for two.
ROOM_BYTES: Final = LAYER_BYTES * 3 // 2


@pytest.mark.parametrize("percent", [10, 50, 99])
def test_a_disk_that_fills_in_mid_blob_costs_the_client_nothing(scene: Scene, percent: int) -> None:
    """By failpoint: data files are preallocated, so that no real disk fills within one."""
    layer = scene.layer(0)
    with recorded(6, "disk full at the reading peer", f"at {percent} % of a blob") as record:
        plan = failing(f"store.before_chunk=full@{CHUNKS * percent // 100}+")
        peer = scene.cluster.start_peer(scene.host("a"), env=plan)

        readings = [read(peer, layer)]

        assert_served(record, readings, layer)
        unstored_bytes = peer.page()["fallback_bytes"]["proxy"]
        assert unstored_bytes > 0
        readiness = peer.readiness()
        assert (readiness["ready"], readiness["degraded"]) == (True, ["store_full"])
        record.bytes["unstored"] = unstored_bytes
        record.outcome = f"client served; longest silence {longest_gap_s(readings):.2f} s"
        assert_frugal(record, scene, [layer])
        assert_verified(record, scene, [peer])
        assert scene.inspect(peer).whole_blobs == []
        assert_no_orphans(record, scene, peer)


def test_a_full_disk_is_tried_again_and_evicted_from_without_a_restart(scene: Scene) -> None:
    first, second = scene.layer(0), scene.layer(1)
    with recorded(6, "disk full at the reading peer", "tmpfs, then freed") as record:
        disk = scene.lab.small_disk("a", RESERVE_FREE_BYTES + ROOM_BYTES)
        filler = _fill(disk, LAYER_BYTES)
        peer = scene.cluster.start_peer(scene.host("a"), state_dir=disk)

        unstored = read(peer, first)
        full = peer.readiness()
        assert peer.page()["fallback_bytes"] == {"proxy": first.size_bytes}
        assert (full["ready"], full["degraded"]) == (True, ["store_full"])

        filler.unlink()
        stored = read(peer, first)
        freed = peer.readiness()
        assert peer.page()["fallback_bytes"] == {"proxy": first.size_bytes}
        assert freed["degraded"] == []

        peer.stop()
        assert scene.inspect(peer).whole_blobs == [first.digest]
        peer.start()
        evicting = read(peer, second)

        assert_served(record, [unstored, stored], first)
        assert_served(record, [evicting], second)
        record.bytes["unstored"] = first.size_bytes
        record.outcome = "served unstored; stored once there was room; then evicted for the next"
        assert_frugal(record, scene, [first, second])
        assert_verified(record, scene, [peer])
        assert scene.inspect(peer).whole_blobs == [second.digest]
        assert_no_orphans(record, scene, peer)


def _fill(disk: Path, size_bytes: int) -> Path:
    """Take that much of a file system away, as another program of the host does."""
    path = disk / "filler"
    path.write_bytes(bytes(size_bytes))
    return path
