"""Rows 21 to 25 and 27: registries that limit, fail, stall, lie and let tokens expire."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import aiohttp
import pytest

from p2pdist.model.ids import digest_of
from p2pdist.peer.daemon import RunningPeer, running_peer
from p2pdist.registry_proxy.daemon import RunningProxy, running_proxy
from tests.fakes.cluster import Lab, announced, url_of
from tests.fakes.pulling import random_bytes, read_blob
from tests.fakes.registry import FakeRegistry, Fault, TokenAuth
from tests.faults.reading import check_stores, read_in_one_get
from tests.faults.records import recorded

MIB = 1 << 20
LAYER = random_bytes(8 * MIB + 77, 81)
DIGEST = digest_of(LAYER)
MANIFEST_PATH = "/v2/library/app/manifests/1"
BLOB_DEADLINE_S = 5.5
"""5 s of the contract, and what the machine adds."""
WAITING = 300
"""Clients at one time; the catalogue's 10,000 is a simulation."""


async def manifest(client: aiohttp.ClientSession, base: str) -> tuple[int, dict[str, str], bytes]:
    async with client.get(f"{base}{MANIFEST_PATH}") as answer:
        return answer.status, dict(answer.headers), await answer.read()


def asked(registry: FakeRegistry, part: str) -> int:
    return sum(part in request.path for request in registry.asked)


# --- row 21: limits -----------------------------------------------------------------------------


@pytest.mark.parametrize("retry_after", [None, "30"])
async def test_row_21_a_limit_is_honoured_and_the_cached_tag_served(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, retry_after: str | None
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    proxy = await lab.stack.enter_async_context(impatient_proxy(lab))
    base = url_of(proxy.registry)
    _, _, fresh = await manifest(client, base)
    headers = {"Retry-After": retry_after} if retry_after else {}
    with recorded(21, "upstream 429", f"Retry-After {retry_after}") as record:
        registry.faults["1"] = Fault(status=429, headers=headers)
        before = asked(registry, "/manifests/1")

        answers = await asyncio.gather(*(manifest(client, base) for _ in range(WAITING)))
        further = await manifest(client, base)

        requests = asked(registry, "/manifests/1") - before
        assert {status for status, _, _ in (*answers, further)} == {200}
        assert {body for _, _, body in answers} == {fresh}
        assert all("Warning" in headers for _, headers, _ in answers)
        assert requests <= 3
        check_stores(lab)
        record.retries = requests
        record.outcome = (
            f"{WAITING} clients got the cached tag with a warning; {requests} upstream requests"
        )
        record.invariants = ["I1", "I2", "I4", "I5"]


def impatient_proxy(lab: Lab) -> AbstractAsyncContextManager[RunningProxy]:
    """Looks every tag up again at once."""
    settings = lab.settings("proxy")
    return running_proxy(replace(settings, proxy=replace(settings.proxy, tag_ttl_s=0.0)))


# --- row 22: errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_row_22_a_burst_of_errors_is_lived_through(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, status: int
) -> None:
    image = registry.add_image("library/app", "1", [LAYER])
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    await manifest(client, url_of(peer.mirror))
    registry.faults[image.layer_digests[0]] = Fault(status=status, times=2)
    with recorded(22, "upstream errors", f"two {status} before the blob") as record:
        reading = await read_in_one_get(client, url_of(peer.mirror), DIGEST)

        assert reading.body == LAYER
        reading.held_to(record)
        assert registry.payload_bytes[DIGEST] == len(LAYER)
        check_stores(lab)
        record.retries = 2
        record.outcome = f"client served in one GET; first byte after {reading.first_byte_s:.2f} s"
        record.invariants = ["I1", "I2", "I3", "I4", "I5"]


async def test_row_22_lasting_errors_are_invisible_where_a_peer_has_the_data(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    seed, reader = await seeded(registry, lab, client)
    registry.faults[DIGEST] = Fault(status=500)
    with recorded(22, "upstream errors", "500 for ever, a peer has the blob") as record:
        reading = await read_in_one_get(client, url_of(reader.mirror), DIGEST)

        assert reading.body == LAYER
        reading.held_to(record)
        assert reader.running.node.counters.received["dc"] > 0
        record.outcome = f"client served by peers; longest silence {reading.longest_gap_s:.2f} s"
        record.bytes = {"from peers": reader.running.node.counters.received["dc"]}
        check_stores(lab)
        record.invariants = ["I1", "I2", "I4"]
        del seed


async def test_row_22_a_lasting_failure_is_told_as_not_here(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """Never 5xx and never 429: 404 makes the client go to its next endpoint at once."""
    image = registry.add_image("library/app", "1", [LAYER])
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    await manifest(client, url_of(peer.mirror))
    registry.faults[image.layer_digests[0]] = Fault(status=503)
    with recorded(22, "upstream errors", "503 for ever, nobody has the blob") as record:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        url = f"{url_of(peer.mirror)}/v2/library/app/blobs/{DIGEST}"
        async with client.get(url) as answer:
            body = await answer.read()
        took_s = loop.time() - began_s

        assert answer.status == 404
        assert json.loads(body)["errors"][0]["code"] == "BLOB_UNKNOWN"
        record.took("404", took_s, at_most_s=BLOB_DEADLINE_S)
        check_stores(lab)
        record.retries = asked(registry, DIGEST) - 1
        record.outcome = f"404 BLOB_UNKNOWN after {took_s:.1f} s"
        record.invariants = ["I1", "I2", "I3", "I4"]


# --- rows 23 and 24: broken bodies ----------------------------------------------------------------


BROKEN = {
    "stall after 3 MiB": (23, Fault(stall_after=3 * MIB, times=1)),
    "cut after 3 MiB": (24, Fault(truncate_after=3 * MIB, times=1)),
    "cut, then 200 for a Range": (24, Fault(truncate_after=3 * MIB, ignore_range=True, times=2)),
    "wrong Content-Range": (
        24,
        Fault(truncate_after=3 * MIB, content_range="bytes 0-0/1", times=1),
    ),
    "no length at all": (24, Fault(no_length=True)),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_body_goes_on_in_the_same_response(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, broken: str
) -> None:
    row, fault = BROKEN[broken]
    registry.add_image("library/app", "1", [LAYER])
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    await manifest(client, url_of(peer.mirror))
    registry.faults[DIGEST] = replace(fault)
    with recorded(row, "upstream body breaks", broken) as record:
        reading = await read_in_one_get(client, url_of(peer.mirror), DIGEST)

        payload = registry.payload_bytes[DIGEST]
        assert reading.body == LAYER
        reading.held_to(record)
        check_stores(lab)
        record.bytes = {"upstream": payload}
        record.retries = registry.count("GET", f"/blobs/{DIGEST}") - 1
        record.outcome = (
            f"client served in one GET; {payload / len(LAYER):.2f} x over the wire, "
            f"longest silence {reading.longest_gap_s:.1f} s"
        )
        if not fault.ignore_range:  # a registry without ranges sends the whole again
            assert payload <= len(LAYER) + 256 * 1024
        record.invariants = ["I1", "I2", "I3", "I4", "I5"]


@pytest.mark.parametrize(
    ("row", "name", "fault"),
    [
        (23, "stalls for ever", Fault(stall_after=3 * MIB)),
        (24, "is cut for ever", Fault(truncate_after=3 * MIB)),
    ],
)
async def test_a_broken_upstream_is_invisible_where_a_peer_has_the_data(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    row: int,
    name: str,
    fault: Fault,
) -> None:
    _, reader = await seeded(registry, lab, client)
    registry.faults[DIGEST] = fault
    with recorded(row, "upstream body breaks", f"{name}, a peer has the blob") as record:
        reading = await read_in_one_get(client, url_of(reader.mirror), DIGEST)

        assert reading.body == LAYER
        reading.held_to(record)
        check_stores(lab)
        record.bytes = {"from peers": reader.running.node.counters.received["dc"]}
        record.outcome = f"client served; longest silence {reading.longest_gap_s:.2f} s"
        record.invariants = ["I1", "I2", "I4"]


async def test_row_24_a_body_that_ends_for_good_is_no_complete_body(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    await lab.tracker()
    await lab.proxy()
    settings = lab.settings("a")
    hasty = replace(settings, peer=replace(settings.peer, patience_s=3.0))
    peer = await lab.stack.enter_async_context(running_peer(hasty))
    await manifest(client, url_of(peer.mirror))
    registry.faults[DIGEST] = Fault(truncate_after=3 * MIB, times=1)
    with recorded(24, "upstream body breaks", "no other source") as record:
        reading = asyncio.get_running_loop().create_task(
            read_blob(client, url_of(peer.mirror), DIGEST), name="read"
        )
        async with asyncio.timeout(10):
            while registry.payload_bytes[DIGEST] < 3 * MIB:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        registry.faults[DIGEST] = Fault(status=500)
        with pytest.raises(aiohttp.ClientPayloadError):
            await reading

        stored = peer.running.store.get(DIGEST)
        assert stored is None or not stored.complete
        check_stores(lab)
        record.outcome = "body ends short of its length, nothing looks whole"
        record.invariants = ["I1", "I2", "I3", "I4"]


# --- row 25: lies ---------------------------------------------------------------------------------


async def test_row_25_a_manifest_that_is_not_its_digest_is_refused_with_both(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    image = registry.add_image("library/app", "1", [LAYER])
    registry.faults[image.manifest_digest] = Fault(corrupt_at=20)
    proxy = await lab.proxy()
    with recorded(25, "upstream body is not its digest", "manifest") as record:
        url = f"{url_of(proxy.registry)}/v2/library/app/manifests/{image.manifest_digest}"
        async with client.get(url) as answer:
            error = json.loads(await answer.read())["errors"][0]

        assert answer.status == 502
        assert image.manifest_digest in json.dumps(error)
        check_stores(lab)
        record.outcome = "502, the digest named; nothing stored"
        record.invariants = ["I1", "I2", "I4"]


@pytest.mark.parametrize("corrupt_at", [0, len(LAYER) - 1])
async def test_row_25_a_blob_that_is_not_its_digest_is_never_whole(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, corrupt_at: int
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    registry.faults[DIGEST] = Fault(corrupt_at=corrupt_at)
    await lab.tracker()
    proxy = await lab.proxy()
    peers = [await lab.peer(name) for name in ("a", "b")]
    await asyncio.gather(*(manifest(client, url_of(peer.mirror)) for peer in peers))
    with recorded(25, "upstream body is not its digest", f"blob, byte {corrupt_at}") as record:
        outcomes = await asyncio.gather(
            *(read_blob(client, url_of(peer.mirror), DIGEST) for peer in peers),
            return_exceptions=True,
        )

        assert all(isinstance(outcome, aiohttp.ClientError) for outcome in outcomes)
        for running in (proxy.running, *(peer.running for peer in peers)):
            stored = running.store.get(DIGEST)
            assert stored is None or not stored.complete
        await revoked_everywhere(lab)
        check_stores(lab)
        registry.faults.clear()
        later = await asyncio.gather(*(read_blob(client, url_of(p.mirror), DIGEST) for p in peers))
        assert all(body == LAYER for body in later)
        record.outcome = "bodies end short, the map is revoked; right at the next pull"
        record.invariants = ["I1", "I2", "I3", "I4"]


async def revoked_everywhere(lab: Lab) -> None:
    """The blob's directory is gone at every node: the removal goes on behind the bodies' end."""
    async with asyncio.timeout(10):
        while any(lab.directory.glob(f"**/blobs/*/*/{DIGEST.partition(':')[2]}*")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# --- row 27: tokens -------------------------------------------------------------------------------


async def test_row_27_a_token_that_expires_in_mid_blob_costs_one_more(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    registry.auth = TokenAuth()
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    await manifest(client, url_of(peer.mirror))
    registry.faults[DIGEST] = Fault(truncate_after=3 * MIB, times=1)
    tokens_before = registry.count("GET", "/token")
    with recorded(27, "token expires in mid blob", "401 on resume") as record:
        reading_task = asyncio.get_running_loop().create_task(
            read_in_one_get(client, url_of(peer.mirror), DIGEST), name="read"
        )
        async with asyncio.timeout(10):
            while registry.payload_bytes[DIGEST] < 3 * MIB:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        registry.revoke_tokens()
        reading = await reading_task

        again = registry.count("GET", "/token") - tokens_before
        assert reading.body == LAYER
        assert 1 <= again <= 2  # the blob's scope may be one of its own
        assert registry.payload_bytes[DIGEST] <= len(LAYER) + 256 * 1024
        check_stores(lab)
        record.retries = again
        record.bytes = {"upstream": registry.payload_bytes[DIGEST]}
        record.outcome = f"one re-authentication, resumed at the offset; {again} token requests"
        record.invariants = ["I1", "I2", "I4", "I5"]


async def seeded(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> tuple[RunningPeer, RunningPeer]:
    """A peer that has the blob, a fresh proxy that has not, a peer that has nothing."""
    registry.add_image("library/app", "1", [LAYER])
    tracker = await lab.tracker()
    async with lab.proxy_context("first"):
        seed = await lab.peer("seed")
        await manifest(client, url_of(seed.mirror))
        await read_blob(client, url_of(seed.mirror), DIGEST)
    await announced(tracker, seed)
    lab.proxies.clear()
    proxy: RunningProxy = await lab.proxy("second")
    reader = await lab.peer("reader")
    await manifest(client, url_of(reader.mirror))
    assert proxy.running.store.get(DIGEST) is None
    return seed, reader
