"""Row 2: a peer is killed between two steps of the store, by failpoint."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.faults.scene import Scene, assert_no_orphans, assert_served, failing, read
from tests.e2e.harness import mirror
from tests.e2e.harness.image import REPOSITORY, Image
from tests.e2e.harness.lab import open_lab
from tests.e2e.harness.p2p import LOOPBACK, PEER_PORT, Daemon
from tests.faults.records import recorded

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

# Each point, and which time of passing it: the store's format, then the manifest and its tag are
# written whole, then the layer's files come to be, then its chunks arrive.
PLANS: Final = (
    "store.before_sync=kill@2",
    "store.before_rename=kill@2",
    "store.after_rename=kill@2",
    "store.before_rename=kill@3",
    "store.before_map=kill@1",
    "store.before_map_rename=kill@1",
    "store.after_map_rename=kill@1",
    "store.before_chunk=kill@20",
    "store.before_bits=kill@5",
    "store.after_bits=kill@5",
    "store.before_blob_sync=kill@1",
)


@pytest.fixture(scope="module")
def shared(layered: Image, layered_storage: Path) -> Iterator[Scene]:
    """One scene for all points: each has a peer with an empty state directory."""
    with open_lab() as lab:
        yield Scene(lab, layered, layered_storage)


@pytest.fixture(scope="module")
def peer(shared: Scene) -> Daemon:
    return shared.peer("a")


@pytest.mark.parametrize("plan", PLANS)
def test_a_kill_between_two_steps_leaves_nothing_half_done(
    shared: Scene, peer: Daemon, plan: str
) -> None:
    layer = shared.layer(-1)
    with recorded(2, "peer killed between two steps of the store", plan) as record:
        peer.stop()
        shutil.rmtree(peer.state_dir)
        peer.start(failing(plan))

        with contextlib.suppress(OSError, HTTPException):  # at the last point all may be delivered
            _pull(peer, shared)
        assert peer.process.wait_ended() == -signal.SIGKILL
        found = shared.inspect(peer)
        assert found.wrong == []
        peer.start()
        _pull(peer, shared)
        again = read(peer, layer)

        assert_served(record, [again], layer)
        record.invariants.append("I1")
        record.retries = 1
        assert_no_orphans(record, shared, peer)
        assert layer.digest in shared.inspect(peer).whole_blobs
        left = f"{found.verified_chunks} verified chunks" if found.verified_chunks else "no chunk"
        record.outcome = f"killed as planned; {left} left, nothing half; the next pull is whole"


def _pull(peer: Daemon, scene: Scene) -> None:
    """Manifest by tag, then a layer: what the store of a peer writes in a pull."""
    path = f"/v2/{REPOSITORY}/manifests/1"
    status, _ = mirror.get(peer.host, LOOPBACK, PEER_PORT, path)
    assert status == 200
    read(peer, scene.layer(-1))
