"""Daemons that are killed in the middle of a pull."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.harness.image import REPOSITORY, Blob, Image
from tests.e2e.harness.lab import Lab
from tests.e2e.harness.netns import Host
from tests.e2e.harness.p2p import Cluster, Daemon, peer_mirror
from tests.e2e.harness.processes import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

# The 100 MB layer takes 4 s: time enough to look, and to kill a daemon in the middle.
LINK_MBIT_PER_S: Final = 200
# A peer has two runs of 1 MiB outstanding at the proxy; as much again may sit in socket buffers and
# in the shaped link's queue when the peer dies.
IN_FLIGHT_BYTES_MAX: Final = 4 << 20


def test_a_killed_peer_fetches_again_only_what_was_in_flight(
    lab: Lab, image: Image, storage: Path
) -> None:
    layer = image.largest_layer
    cluster = _cluster(lab, storage)
    cluster.start_tracker()
    proxy = cluster.start_proxy()
    host = lab.host("a", mbit_per_s=LINK_MBIT_PER_S)
    peer = cluster.start_peer(host)

    with ThreadPoolExecutor(max_workers=1) as background:
        cut = background.submit(_read, host, layer)
        _wait_for_a_third(peer, layer)
        before = peer.status()
        peer.kill9()
        with pytest.raises((OSError, HTTPException)):
            cut.result()
    peer.start()
    again = _read(host, layer)

    assert again == layer
    after = peer.status()
    assert after.received_bytes <= layer.size_bytes - before.received_bytes
    assert proxy.status().sent["peer"] <= layer.size_bytes + IN_FLIGHT_BYTES_MAX


def test_a_pull_survives_the_trackers_death(lab: Lab, image: Image, storage: Path) -> None:
    layer = image.largest_layer
    cluster = _cluster(lab, storage)
    tracker = cluster.start_tracker()
    cluster.start_proxy()
    hosts = [lab.host(name, mbit_per_s=LINK_MBIT_PER_S) for name in ("a", "b")]
    peers = [cluster.start_peer(host) for host in hosts]

    with ThreadPoolExecutor(max_workers=len(hosts)) as background:
        pulls = [background.submit(_read, host, layer) for host in hosts]
        for peer in peers:
            _wait_for_a_third(peer, layer)
        tracker.kill9()
        assert not any(pull.done() for pull in pulls), "the tracker died too late to matter"
        pulled = [pull.result() for pull in pulls]

    assert pulled == [layer, layer]


def _cluster(lab: Lab, storage: Path) -> Cluster:
    return lab.cluster(lab.host("core"), lab.registry(lab.host("registry"), storage))


def _read(host: Host, layer: Blob) -> Blob:
    return peer_mirror(host).read_blob(REPOSITORY, layer.digest)


def _wait_for_a_third(peer: Daemon, layer: Blob) -> None:
    wait_until(
        lambda: peer.status().received_bytes >= layer.size_bytes // 3,
        f"third of the layer at the {peer.process.name}",
        log=peer.process.log,
    )
