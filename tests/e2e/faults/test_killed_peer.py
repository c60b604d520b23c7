"""Rows 1 and 3: a peer is killed, as a receiver and as the one that others read from."""

from __future__ import annotations

from http.client import HTTPException
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
from tests.e2e.harness.image import Blob
from tests.e2e.harness.mirror import Reading
from tests.e2e.harness.p2p import Daemon
from tests.faults.records import recorded

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CHUNK_BYTES: Final = 256 * 1024
# A peer has two runs of 1 MiB outstanding at its only source; as much again may sit in the buffers
# of sockets and of the shaped link. They left the sender and never reached the process that died.
IN_FLIGHT_BYTES_MAX: Final = 4 << 20
# 20 readers in the catalogue; these share two cores with everything else.
READERS: Final = 6
EXTRA_S_MAX: Final = 3.0


def test_a_peer_killed_while_receiving_resumes_from_its_verified_chunks(scene: Scene) -> None:
    layer = scene.layer(0)
    with recorded(1, "peer killed while receiving") as record:
        peer = scene.peer("a")
        with reading([peer], layer) as pulls:
            wait_for_share(peer, layer, 0.4)
            peer.kill9()
            with pytest.raises((OSError, HTTPException)):
                pulls[0].result()
        kept = scene.inspect(peer)
        assert (kept.wrong, kept.whole_blobs) == ([], [])
        peer.start()

        again = read(peer, layer)

        assert_served(record, [again], layer)
        fetched_bytes = peer.status().received_bytes
        assert kept.verified_chunks * CHUNK_BYTES + fetched_bytes == layer.size_bytes
        wasted_bytes = scene.proxy.status().sent["peer"] - layer.size_bytes
        assert wasted_bytes <= IN_FLIGHT_BYTES_MAX
        record.retries = 1
        record.bytes |= {"fetched after": fetched_bytes, "sent in vain": wasted_bytes}
        record.outcome = f"{kept.verified_chunks} verified chunks kept, none of them fetched again"
        assert_frugal(record, scene, [layer])
        assert_verified(record, scene, [peer])
        assert_no_orphans(record, scene, peer)


def test_readers_of_a_killed_peer_finish_from_others(scene: Scene) -> None:
    calm, struck = scene.layer(0), scene.layer(1)
    with recorded(3, "peer killed while serving others", f"{READERS} readers") as record:
        doomed, *readers = [scene.peer(f"r{number}") for number in range(READERS + 1)]

        undisturbed = _read_all(doomed, readers, calm)
        disturbed = _read_all(doomed, readers, struck, kill=True)

        assert_served(record, undisturbed, calm)
        assert_served(record, disturbed, struck)
        calm_s, struck_s = (max(r.seconds for r in rs) for rs in (undisturbed, disturbed))
        assert struck_s - calm_s <= EXTRA_S_MAX
        pages = [reader.page() for reader in readers]
        record.retries = sum(page["stalls"] + page["hedges"] for page in pages)
        record.outcome = (
            f"all {READERS} finish; slowest {struck_s:.1f} s, undisturbed {calm_s:.1f} s, "
            f"longest silence {longest_gap_s(disturbed):.2f} s"
        )
        print(f"row 3: {record.outcome}")
        assert [page["fallback_bytes"] for page in pages] == [{}] * READERS
        assert_frugal(record, scene, [calm, struck])
        assert_verified(record, scene, [doomed, *readers])
        assert_no_orphans(record, scene, doomed)


def _read_all(
    doomed: Daemon, readers: list[Daemon], layer: Blob, *, kill: bool = False
) -> list[Reading]:
    """Read `layer` at all of them at once; return what the clients of `readers` saw.

    `kill`: end `doomed` when it has 30 % of the layer, some of which it sent to the others.
    """
    before = doomed.status()
    with reading([doomed, *readers], layer) as (cut, *pulls):
        wait_for_share(doomed, layer, 0.3, since_bytes=before.received_bytes)
        if kill:
            assert doomed.status().sent["peer"] > before.sent["peer"], "it serves nobody"
            doomed.kill9()
            assert not any(pull.done() for pull in pulls), "the fault came too late to matter"
            with pytest.raises((OSError, HTTPException)):
                cut.result()
        return [pull.result() for pull in pulls]
