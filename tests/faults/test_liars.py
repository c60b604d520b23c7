"""Rows 10 to 14: peers that send wrong bytes, none at all, or one at a time."""

from __future__ import annotations

import asyncio
import zlib
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from random import Random

import aiohttp
import pytest
import xxhash

from p2pdist.model.ids import digest_of
from p2pdist.model.members import Address
from p2pdist.peer.daemon import RunningPeer, running_peer
from p2pdist.process.identity import read_secret
from p2pdist.swarm.core.trust import STRIKES_MAX
from tests.fakes.cluster import Lab, url_of
from tests.fakes.evil import EvilPeer
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.faults.fault_proxy import Bandwidth, FaultProxy, Freeze, Latency, Toxic
from tests.faults.liars import Answer, Liar, Mute, corrupt, forge_crc32, forge_xxh64, joined, silent
from tests.faults.reading import check_stores, longest_of, read_in_one_get
from tests.faults.records import recorded

MIB = 1 << 20
LAYER = random_bytes(16 * MIB, 71)
DIGEST = digest_of(LAYER)
STALL_MAX_S = 2.0
"""What a lying bitfield may cost a reader (row 13)."""


async def victims(registry: FakeRegistry, lab: Lab, count: int = 1) -> list[RunningPeer]:
    registry.add_image("library/app", "1", [LAYER])
    await lab.tracker()
    await lab.proxy()
    return [await lab.peer(f"victim{number}") for number in range(count)]


def liar(lab: Lab, peer: RunningPeer, answer: Answer) -> Liar:
    return Liar(peer.running.node.keyring, DIGEST, LAYER, answer)


def together(
    lab: Lab, evil: EvilPeer, peers: list[RunningPeer], number: int = 0xEE
) -> AbstractAsyncContextManager[EvilPeer]:
    addresses = [peer.running.exchange_address for peer in peers]
    return joined(evil, number, addresses, read_secret(lab.keys.secret_file), DIGEST)


@pytest.mark.parametrize("share", [0.01, 0.1, 1.0])
async def test_row_10_corrupt_chunks_are_fetched_elsewhere(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, share: float
) -> None:
    (victim,) = await victims(registry, lab)
    with recorded(10, "corrupt chunks from one peer", f"{share:.0%}") as record:
        async with together(lab, evil := liar(lab, victim, corrupt(share)), [victim]):
            reading = await read_in_one_get(client, url_of(victim.mirror), DIGEST)

        node = victim.running.node
        rejected = node.counters.rejected["hash"]
        assert reading.body == LAYER
        assert evil.chunks_sent > 0
        assert rejected <= STRIKES_MAX
        assert node.core.trust.bans_total == (rejected == STRIKES_MAX)
        if share == 1.0:
            assert node.core.trust.bans_total == 1
        reading.held_to(record)
        check_stores(lab)
        record.retries = rejected
        record.bytes = {
            "wasted": node.counters.wasted_bytes,
            "upstream": registry.payload_bytes[DIGEST],
        }
        record.outcome = (
            f"{rejected} rejected, fetched elsewhere in the same response, "
            f"{'banned' if node.core.trust.bans_total else 'not banned'}"
        )
        record.invariants = ["I1", "I2", "I4", "I5"]
        assert registry.payload_bytes[DIGEST] <= 1.05 * len(LAYER)


@pytest.mark.parametrize(("name", "forge"), [("CRC-32", forge_crc32), ("xxh64", forge_xxh64)])
async def test_row_11_forgeries_with_equal_checksums_are_rejected(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, name: str, forge: Answer
) -> None:
    chunk = LAYER[: 256 * 1024]
    forged = forge(chunk, Random(1))
    assert forged is not None
    assert forged != chunk
    checksum = zlib.crc32 if name == "CRC-32" else xxhash.xxh64_intdigest
    assert checksum(forged) == checksum(chunk)
    (victim,) = await victims(registry, lab)
    with recorded(11, "forged chunks with equal checksums", name) as record:
        async with together(lab, liar(lab, victim, forge), [victim]):
            reading = await read_in_one_get(client, url_of(victim.mirror), DIGEST)

        node = victim.running.node
        assert reading.body == LAYER
        assert 1 <= node.counters.rejected["hash"] <= STRIKES_MAX
        check_stores(lab)
        record.retries = node.counters.rejected["hash"]
        record.outcome = f"{record.retries} forgeries rejected by BLAKE3, their sender banned"
        assert node.core.trust.bans_total == 1
        record.invariants = ["I1", "I2", "I4"]


async def test_row_12_a_third_of_the_swarm_colludes(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """Seven honest peers and three that forge for all of them; no simulation, real daemons."""
    honest = await victims(registry, lab, 7)
    with recorded(12, "30 % of the swarm colludes with forged chunks", "10 peers") as record:
        async with AsyncExitStack() as stack:
            for number, forge in enumerate((forge_crc32, forge_xxh64, corrupt(1.0))):
                evil = liar(lab, honest[0], forge)
                await stack.enter_async_context(together(lab, evil, honest, 0xE0 + number))
            readings = await asyncio.gather(
                *(read_in_one_get(client, url_of(peer.mirror), DIGEST) for peer in honest)
            )

        assert all(reading.body == LAYER for reading in readings)
        rejected = sum(peer.running.node.counters.rejected["hash"] for peer in honest)
        assert 0 < rejected <= 3 * STRIKES_MAX * len(honest)
        assert registry.payload_bytes[DIGEST] <= 1.05 * len(LAYER)
        check_stores(lab)
        record.retries = rejected
        record.bytes = {"upstream": registry.payload_bytes[DIGEST]}
        record.outcome = (
            f"all 7 honest peers right in {max(r.seconds for r in readings):.1f} s; "
            f"{rejected} forgeries rejected, no honest peer banned"
        )
        honest_ids = {peer.running.me().host_id for peer in honest}
        for peer in honest:
            now_s = asyncio.get_running_loop().time()
            trust = peer.running.node.core.trust
            assert not [host for host in honest_ids if trust.banned(host, now_s)]
        record.invariants = ["I1", "I2", "I4", "I5"]


@pytest.mark.parametrize("claim", ["everything, sends none", "nothing"])
async def test_row_13_a_lying_bitfield_stalls_nobody(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, claim: str
) -> None:
    (victim,) = await victims(registry, lab)
    keyring = victim.running.node.keyring
    evil = Mute(keyring, DIGEST) if claim == "nothing" else liar(lab, victim, silent)
    with recorded(13, "lying bitfield", f"claims {claim}") as record:
        async with together(lab, evil, [victim]):
            reading = await read_in_one_get(client, url_of(victim.mirror), DIGEST)

        totals = victim.running.node.fetch_totals()
        assert reading.body == LAYER
        reading.held_to(record, STALL_MAX_S + 0.5)  # a stall, then the next source's answer
        if isinstance(evil, Liar):
            assert evil.requests > 0, "nobody asked it"
            assert totals.stalls + totals.hedges > 0
        check_stores(lab)
        record.retries = totals.stalls + totals.hedges
        record.outcome = f"client served; longest silence {reading.longest_gap_s:.2f} s"
        record.invariants = ["I1", "I2", "I4"]


async def behind(
    lab: Lab, stack: AsyncExitStack, client: aiohttp.ClientSession, *toxics: Toxic
) -> RunningPeer:
    """A seed that others reach through a fault proxy only; `toxics` lie on what it sends."""
    settings = lab.settings("seed")
    placeholder = await stack.enter_async_context(FaultProxy(Address("127.0.0.1", 1)))
    settings = replace(settings, host=replace(settings.host, advertise=(placeholder.address,)))
    seed = await stack.enter_async_context(running_peer(settings))
    await pull(client, url_of(seed.mirror))
    placeholder.target = seed.running.exchange_address
    placeholder.down += toxics
    return seed


async def unreachable_reader(lab: Lab, stack: AsyncExitStack) -> RunningPeer:
    """Others cannot dial it, so that it dials them, through their fault proxies."""
    settings = lab.settings("reader")
    nowhere = (Address("127.0.0.1", 1),)
    settings = replace(settings, host=replace(settings.host, advertise=nowhere))
    return await stack.enter_async_context(running_peer(settings))


@pytest.mark.parametrize(
    ("name", "toxics"),
    [
        ("1 B/s after 64 KiB", [Freeze(64 * 1024)]),
        ("20 kB/s", [Bandwidth(20_000)]),
        ("400 ms late", [Latency(0.4)]),
    ],
)
async def test_row_14_a_slow_source_is_left_for_another(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, name: str, toxics: list[Toxic]
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    await lab.tracker()
    await lab.proxy()
    with recorded(14, "slow peer", f"sends {name}") as record:
        async with AsyncExitStack() as stack:
            await behind(lab, stack, client, *toxics)
            reader = await unreachable_reader(lab, stack)

            reading = await read_in_one_get(client, url_of(reader.mirror), DIGEST)

            totals = reader.running.node.fetch_totals()
            received = reader.running.node.counters.received
        assert reading.body == LAYER
        reading.held_to(record)
        assert registry.payload_bytes[DIGEST] <= 1.05 * len(LAYER)
        check_stores(lab)
        record.retries = totals.stalls + totals.hedges
        record.bytes = {source: nbytes for source, nbytes in received.items() if nbytes}
        silence = f"longest silence {reading.longest_gap_s:.2f} s"
        record.outcome = f"client served in {reading.seconds:.1f} s; {silence}"
        record.invariants = ["I1", "I2", "I4", "I5"]


async def test_row_14_a_slow_reader_takes_nothing_from_the_others(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """A client that reads 1 MB/s is not cut, and keeps nobody waiting."""
    (peer,) = await victims(registry, lab)
    url = f"{url_of(peer.mirror)}/v2/library/app/blobs/{DIGEST}"
    with recorded(14, "slow peer", "a container client reads slowly") as record:
        async with client.get(url) as slow:
            begun = await slow.content.readexactly(64 * 1024)
            quick = await asyncio.gather(
                *(read_in_one_get(client, url_of(peer.mirror), DIGEST) for _ in range(4))
            )
            rest = await slow.read()

        assert all(reading.body == LAYER for reading in quick)
        assert begun + rest == LAYER
        record.outcome = (
            f"it got all its bytes, 4 others meanwhile; longest silence {longest_of(quick):.2f} s"
        )
        check_stores(lab)
        record.invariants = ["I1", "I2", "I4"]
