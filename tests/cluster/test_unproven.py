"""What nothing proves is a claim: it binds nobody else, and whoever contradicts it is no liar."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.manifest import OCI_MANIFEST
from p2pdist.peer.daemon import RunningPeer
from p2pdist.process.clock import unix_s
from p2pdist.registry_proxy.daemon import RunningProxy
from tests.fakes.cluster import Lab, announced, url_of
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry, Fault
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

MIB = 1 << 20
LAYER = random_bytes(5 * MIB + 17, 11)
DIGEST = digest_of(LAYER)
DAY_S = 24 * 3600


def from_outside(peer: RunningPeer) -> int:
    """Bytes that the swarm did not bring."""
    return peer.running.node.counters.fallbacks.total()


def days_ago(days: float) -> Callable[[], float]:
    return lambda: unix_s() - days * DAY_S


# --- clocks of other hosts --------------------------------------------------------------------


@pytest.mark.parametrize("days", [400, 0.1, -0.002, -1])
async def test_a_layer_comes_through_the_swarm_whatever_the_proxys_clock_says(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    days: float,
) -> None:
    """Cold, and for one who comes when the map was sealed; so does a map from long ago."""
    registry.add_image("library/app", "1", [LAYER])
    monkeypatch.setattr("p2pdist.registry_proxy.ingest.unix_s", days_ago(days))
    where = f"proxy {abs(days):g} days {'behind' if days > 0 else 'ahead'}"
    with recorded(33, "clocks apart", where) as record:
        await lab.tracker()
        await lab.proxy()
        first = await lab.peer("first")
        assert (await pull(client, url_of(first.mirror)))[DIGEST] == LAYER
        second = await lab.peer("second")
        assert (await pull(client, url_of(second.mirror)))[DIGEST] == LAYER

        for peer in (first, second):
            assert from_outside(peer) == 0
            assert peer.running.node.counters.rejected.total() == 0
        assert registry.payload_bytes[DIGEST] == len(LAYER)
        record.bytes = {"upstream": registry.payload_bytes[DIGEST]}
        record.outcome = "cold and sealed, all from the swarm"
        record.invariants = ["I2", "I5"]


async def chunks_with_hashes(proxy: RunningProxy, least: int) -> int:
    async with asyncio.timeout(10):
        while True:
            blob = proxy.running.store.get(DIGEST)
            if blob is not None and (held := len(blob.chunk_map.known)) >= least:
                return held
            await asyncio.sleep(0.01)


async def test_a_map_from_before_a_restart_is_taken_up_again(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long ago its first half was read: those bytes do not cross the registry again."""
    with recorded(47, "chunk map of long ago", "open for 400 days, proxy restarted") as record:
        registry.add_image("library/app", "1", [LAYER])
        registry.faults[DIGEST] = Fault(stall_after=3 * MIB)
        await lab.tracker()
        with monkeypatch.context() as then:
            then.setattr("p2pdist.registry_proxy.ingest.unix_s", days_ago(400))
            async with lab.proxy_context() as proxy, asyncio.TaskGroup() as tasks:
                url = url_of(proxy.registry)
                reader = tasks.create_task(read_blob(client, url, DIGEST))
                await registry.stalled.wait()
                held = await chunks_with_hashes(proxy, 11)
                reader.cancel()
        registry.faults.clear()
        registry.release()
        registry.payload_bytes.clear()
        lab.proxies.clear()

        proxy = await lab.proxy()
        assert await read_blob(client, url_of(proxy.registry), DIGEST) == LAYER

        assert registry.payload_bytes[DIGEST] == len(LAYER) - held * 256 * 1024
        record.bytes = {"upstream, of the rest": registry.payload_bytes[DIGEST]}
        record.outcome = f"{held} chunks that were read then are not read again"
        record.invariants = ["I5"]


async def test_a_sealed_map_of_hours_ago_is_enough_for_peers_alone(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a map's age counted, a host answered 404 for a layer that its neighbour had."""
    registry.add_image("library/app", "1", [LAYER])
    monkeypatch.setattr("p2pdist.registry_proxy.ingest.unix_s", days_ago(0.1))
    with recorded(47, "chunk map of long ago", "sealed 2.4 h ago, proxy gone") as record:
        tracker = await lab.tracker()
        async with lab.proxy_context():
            first = await lab.peer("first")
            assert (await pull(client, url_of(first.mirror)))[DIGEST] == LAYER
        await announced(tracker, first)
        second = await lab.peer("second")
        assert (await pull(client, url_of(second.mirror)))[DIGEST] == LAYER

        assert from_outside(second) == 0
        record.bytes = {"from peers": second.running.node.counters.received["dc"]}
        record.outcome = "all from the neighbour that has it"
        record.invariants = ["I2", "I5"]


# --- sizes that manifests claim ---------------------------------------------------------------


def add_liar(registry: FakeRegistry, true: bytes, size_bytes: int) -> str:
    """Tag `liar` of another repository: names the layer of `library/app`, with another size."""
    image = registry.add_image("mallory/evil", "", [LAYER])
    body = image.manifest_body.replace(b'"size":%d' % len(true), b'"size":%d' % size_bytes).replace(
        b'"size": %d' % len(true), b'"size": %d' % size_bytes
    )
    assert body != image.manifest_body
    registry.add_manifest("mallory/evil", body, OCI_MANIFEST, tag="liar")
    return "mallory/evil"


async def ask(client: aiohttp.ClientSession, base_url: str, path: str) -> tuple[int, bytes]:
    """Status and body; a body that ends short is as good as none."""
    try:
        async with client.get(f"{base_url}/v2/{path}") as answer:
            return answer.status, await answer.read()
    except aiohttp.ClientPayloadError:
        return 0, b""


@pytest.mark.parametrize("claim", [len(LAYER) - MIB, len(LAYER) + 1, 3 << 30, 10])
@pytest.mark.parametrize("liar_is_pulled", [True, False])
async def test_a_size_that_a_foreign_manifest_claims_harms_nobody_else(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    claim: int,
    liar_is_pulled: bool,
) -> None:
    """Hosts used to ban their proxy for ten minutes for saying the truth."""
    variant = f"{claim:,} B, {'pulled' if liar_is_pulled else 'seen'} by a host"
    with recorded(48, "manifest that states a wrong size", variant) as record:
        registry.add_image("library/app", "1", [LAYER])
        evil = add_liar(registry, LAYER, claim)
        await lab.tracker()
        await lab.proxy()
        seeder = await lab.peer("seeder")
        assert (await pull(client, url_of(seeder.mirror)))[DIGEST] == LAYER
        victim = await lab.peer("victim")
        url = url_of(victim.mirror)

        status, _ = await ask(client, url, f"{evil}/manifests/liar")
        assert status == 200
        if liar_is_pulled:
            await ask(client, url, f"{evil}/blobs/{DIGEST}")
        assert (await pull(client, url))[DIGEST] == LAYER

        node = victim.running.node
        assert node.core.trust.bans_total == 0
        assert node.counters.rejected.total() == 0
        assert registry.payload_bytes[DIGEST] <= 2 * len(LAYER)
        record.bytes = {"upstream": registry.payload_bytes[DIGEST]}
        record.outcome = "the true image is served; nobody banned, nothing rejected"
        record.invariants = ["I2"]


# --- ranges -----------------------------------------------------------------------------------


RANGES = [(0, 999), (0, len(LAYER) - 2), (1_000_000, 2_000_000), (0, len(LAYER) - 1)]


async def ranged(
    client: aiohttp.ClientSession, base_url: str, first: int, last: int
) -> bytes | None:
    """The complete answer to a Range; None when it is an error, or ends short."""
    headers = {"Range": f"bytes={first}-{last}"}
    try:
        async with client.get(f"{base_url}/v2/library/app/blobs/{DIGEST}", headers=headers) as told:
            body = await told.read()
    except aiohttp.ClientError:
        return None
    return body if told.status in (200, 206) else None


async def url_at(lab: Lab, where: str) -> str:
    """A mirror or proxy that knows the manifest, and nothing else."""
    await lab.tracker()
    if where == "direct":
        return url_of((await lab.peer("alone", direct=True)).mirror)
    proxy = await lab.proxy()
    return url_of(proxy.registry if where == "proxy" else (await lab.peer("host")).mirror)


@pytest.mark.parametrize("where", ["peer", "proxy", "direct"])
async def test_no_range_is_answered_whole_with_bytes_that_nothing_proves(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, where: str
) -> None:
    """A range that ends before the blob does used to be, with the registry's wrong bytes."""
    with recorded(50, "range of a blob with a wrong byte", where) as record:
        registry.add_image("library/app", "1", [LAYER])
        registry.faults[DIGEST] = Fault(corrupt_at=1_500_000)
        url = await url_at(lab, where)
        assert (await ask(client, url, "library/app/manifests/1"))[0] == 200

        answers = await asyncio.gather(*(ranged(client, url, *r) for r in RANGES))
        assert answers == [None] * len(RANGES)
        record.outcome = f"none of {len(RANGES)} ranges answered whole"
        record.invariants = ["I1"]


@pytest.mark.parametrize("where", ["peer", "proxy", "direct"])
async def test_ranges_of_a_cold_blob_are_answered(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, where: str
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    url = await url_at(lab, where)
    assert (await ask(client, url, "library/app/manifests/1"))[0] == 200

    bodies = await asyncio.gather(*(ranged(client, url, *r) for r in RANGES))

    assert bodies == [LAYER[first : last + 1] for first, last in RANGES]
