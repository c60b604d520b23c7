"""Another proxy key, by intent or by mistake: nothing that lies on a disk is read anew."""

from __future__ import annotations

from dataclasses import replace

import aiohttp

from p2pdist.model.ids import digest_of
from p2pdist.process.keys import make_keys
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry

LAYER = random_bytes((5 << 20) + 17, 12)
DIGEST = digest_of(LAYER)


def with_another_key(lab: Lab) -> Lab:
    """The same hosts and secret, configured with another proxy key."""
    fresh = make_keys(lab.directory / "other-keys")
    keys = replace(lab.keys, key_file=fresh.key_file, public_key=fresh.public_key)
    return replace(lab, keys=keys, trackers=[], proxies=[])


async def run_once(lab: Lab, client: aiohttp.ClientSession) -> None:
    """A proxy and a host pull the image, and end."""
    await lab.tracker()
    async with lab.proxy_context(), lab.peer_context("host") as host:
        assert (await pull(client, url_of(host.mirror)))[DIGEST] == LAYER


async def test_after_a_change_of_keys_nothing_crosses_a_link_again(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """The proxy signs what it holds, and hosts find that their chunks have those hashes."""
    registry.add_image("library/app", "1", [LAYER])
    await run_once(lab, client)
    registry.payload_bytes.clear()

    lab = with_another_key(lab)
    await lab.tracker()
    proxy, host = await lab.proxy(), await lab.peer("host")
    bodies = await pull(client, url_of(host.mirror))

    assert bodies[DIGEST] == LAYER
    assert registry.payload_bytes[DIGEST] == 0
    assert host.running.node.counters.received["dc"] < len(LAYER) / 10
    assert host.running.node.counters.fallbacks.total() == 0
    for running in (proxy.running, host.running):
        blob = running.store.get(DIGEST)
        assert blob is not None
        assert blob.complete


async def test_a_key_that_was_wrong_once_costs_nothing(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    await run_once(lab, client)
    wrong = with_another_key(lab)
    async with wrong.proxy_context() as proxy, wrong.peer_context("host") as host:
        assert proxy.running.store.get(DIGEST) is None
        assert host.running.store.get(DIGEST) is None
    registry.payload_bytes.clear()

    lab.proxies.clear()
    async with lab.proxy_context(), lab.peer_context("host") as host:
        assert (await pull(client, url_of(host.mirror)))[DIGEST] == LAYER
        assert host.running.node.counters.received.total() < len(LAYER) / 10
    assert registry.payload_bytes[DIGEST] == 0


async def test_data_that_rotted_meanwhile_is_not_signed_but_read_anew(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    await run_once(lab, client)
    data = next((lab.directory / "proxy").rglob("data"))
    with data.open("r+b") as file:
        file.seek(300_000)
        file.write(b"rotten")
    registry.payload_bytes.clear()

    lab = with_another_key(lab)
    await lab.tracker()
    proxy = await lab.proxy()
    async with lab.peer_context("another") as host:
        assert (await pull(client, url_of(host.mirror)))[DIGEST] == LAYER
    assert proxy.running.store.revocations() == []  # nothing was signed that had to be taken back
    assert 0 < registry.payload_bytes[DIGEST] <= len(LAYER)
