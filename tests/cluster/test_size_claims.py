"""A size that nothing proves is the word of one repository: it does no harm to another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.names import ImageName
from p2pdist.process.identity import read_secret
from p2pdist.registry_proxy.authority import ProxyAuthority
from p2pdist.registry_proxy.daemon import RunningProxy
from tests.cluster.lies import EVIL, add_lying_image
from tests.fakes.asker import asker
from tests.fakes.cluster import Lab, open_lab, url_of
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry, Fault
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

LAYER = random_bytes(3_000_000, 92)
DIGEST = digest_of(LAYER)
OTHER_LAYER = random_bytes(2_000_000, 93)
WRONG_SIZES = [len(LAYER) - 1, len(LAYER) + 1, 10, 1 << 39]


@pytest.fixture
async def mallory() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
async def both(tmp_path: Path, registry: FakeRegistry, mallory: FakeRegistry) -> AsyncIterator[Lab]:
    """Two registries on the list: docker.io is right, ghcr.io lies."""
    upstreams = {"docker.io": registry.url, "ghcr.io": mallory.url}
    async with open_lab(tmp_path, upstreams) as lab:
        yield lab


@asynccontextmanager
async def asked(
    client: aiohttp.ClientSession, method: str, base: str, path: str, ns: str = "docker.io"
) -> AsyncIterator[aiohttp.ClientResponse]:
    async with client.request(method, f"{base}/v2/{path}?ns={ns}") as answer:
        yield answer


def sealed(proxy: RunningProxy) -> bool:
    blob = proxy.running.store.get(DIGEST)
    return blob is not None and blob.complete


@pytest.mark.parametrize("size", WRONG_SIZES)
async def test_a_manifest_that_lies_harms_its_own_repository_only(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, size: int
) -> None:
    with recorded(48, "manifest that states a wrong size", f"{size:,} B, at the proxy") as record:
        registry.add_image("library/app", "1", [LAYER])
        add_lying_image(registry, LAYER, size)
        await lab.tracker()
        proxy = await lab.proxy()
        base = url_of(proxy.registry)
        for path in (f"{EVIL}/manifests/1", f"{EVIL}/blobs/{DIGEST}"):
            async with asked(client, "GET", base, path) as answer:
                await answer.read()

        bodies = await pull(client, base)

        assert bodies[DIGEST] == LAYER
        assert sealed(proxy)
        async with asked(client, "HEAD", base, f"{EVIL}/blobs/{DIGEST}") as answer:
            assert answer.headers["Content-Length"] == str(len(LAYER))  # proven by now, for all
        record.outcome = "the true image is served and sealed; the liar's HEAD is right by then"
        record.invariants = ["I2"]


async def test_a_body_that_goes_on_beyond_a_false_size_takes_its_map_back(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """Its registry does not say how long it is, so that the map is open by then."""
    registry.add_image("library/app", "1", [LAYER])
    add_lying_image(registry, LAYER, len(LAYER) - 1_000_000)
    registry.faults[DIGEST] = Fault(no_length=True, ignore_range=True)
    await lab.tracker()
    proxy = await lab.proxy()
    base = url_of(proxy.registry)
    async with asked(client, "GET", base, f"{EVIL}/manifests/1") as answer:
        await answer.read()
    with pytest.raises(aiohttp.ClientError):
        async with asked(client, "GET", base, f"{EVIL}/blobs/{DIGEST}") as answer:
            await answer.read()

    bodies = await pull(client, base)

    assert bodies[DIGEST] == LAYER
    assert sealed(proxy)
    assert len(proxy.running.store.revocations()) == 1


@pytest.mark.parametrize("told", [0, len(LAYER) - 1])
async def test_a_registry_that_lies_about_a_length_harms_no_other(
    registry: FakeRegistry,
    mallory: FakeRegistry,
    both: Lab,
    client: aiohttp.ClientSession,
    told: int,
) -> None:
    with recorded(49, "HEAD of a listed registry lies", f"{told:,} B") as record:
        registry.add_image("library/app", "1", [LAYER])
        mallory._blobs["mallory/x", DIGEST] = bytes(told)
        await both.tracker()
        proxy = await both.proxy()
        base = url_of(proxy.registry)
        async with asked(client, "GET", base, "library/app/manifests/1") as answer:
            await answer.read()
        async with asked(client, "HEAD", base, f"mallory/x/blobs/{DIGEST}", "ghcr.io") as answer:
            assert answer.status == 200

        async with asked(client, "HEAD", base, f"library/app/blobs/{DIGEST}") as answer:
            assert answer.headers["Content-Length"] == str(len(LAYER))
        assert await read_blob(client, base, DIGEST) == LAYER
        assert sealed(proxy)
        record.outcome = "the other registry's HEAD and blob are right"
        record.invariants = ["I2"]


async def test_what_is_fetched_under_a_false_size_keeps_nobody_from_the_blob(
    registry: FakeRegistry, mallory: FakeRegistry, both: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    mallory._blobs["mallory/x", DIGEST] = OTHER_LAYER
    mallory.faults[DIGEST] = Fault(stall_after=1 << 20)
    await both.tracker()
    proxy = await both.proxy()
    base = url_of(proxy.registry)
    async with asked(client, "GET", base, f"mallory/x/blobs/{DIGEST}", "ghcr.io") as stalled:
        assert stalled.status == 200
        assert stalled.headers["Content-Length"] == str(len(OTHER_LAYER))

        bodies = await pull(client, base)

        assert bodies[DIGEST] == LAYER


async def test_what_a_false_size_left_on_the_disk_gives_way(
    registry: FakeRegistry, mallory: FakeRegistry, both: Lab, client: aiohttp.ClientSession
) -> None:
    """An open map, cut otherwise, from before a restart."""
    registry.add_image("library/app", "1", [LAYER])
    mallory._blobs["mallory/x", DIGEST] = OTHER_LAYER
    mallory.faults[DIGEST] = Fault(stall_after=1 << 20)
    await both.tracker()
    async with both.proxy_context() as first:
        base = url_of(first.registry)
        async with asked(client, "GET", base, f"mallory/x/blobs/{DIGEST}", "ghcr.io") as stalled:
            assert await stalled.content.readexactly(1 << 18) == OTHER_LAYER[: 1 << 18]
        left = first.running.store.get(DIGEST)
        assert left is not None
        assert left.geometry.size_bytes == len(OTHER_LAYER)
    mallory.release()
    both.proxies.clear()
    proxy = await both.proxy()

    bodies = await pull(client, url_of(proxy.registry))

    assert bodies[DIGEST] == LAYER
    assert sealed(proxy)


async def test_hosts_that_name_no_repository_get_what_another_one_claims(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """The claim that was heard last is tried first, and is a lie."""
    registry.add_image("library/app", "1", [LAYER])
    add_lying_image(registry, LAYER, len(LAYER) + 1)
    await lab.tracker()
    proxy = await lab.proxy()
    for path in ("library/app/manifests/1", f"{EVIL}/manifests/1"):
        async with asked(client, "GET", url_of(proxy.registry), path) as answer:
            await answer.read()

    secret = read_secret(lab.keys.secret_file)
    async with asker(proxy.running.exchange_address, secret) as asking:
        await asking.say_interest(DIGEST)
        async with asyncio.timeout(20):
            while not sealed(proxy):  # noqa: ASYNC110  # no event for it
                await asyncio.sleep(0.01)


async def test_a_sealed_blob_overrules_all_claims(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    await lab.tracker()
    proxy = await lab.proxy()
    await pull(client, url_of(proxy.registry))
    authority = proxy.running.node.authority
    assert isinstance(authority, ProxyAuthority)

    active = authority.obtain(DIGEST, 1 << 30, [ImageName("docker.io", "library/app")])

    assert (active.complete, active.geometry.size_bytes) == (True, len(LAYER))
    assert sealed(proxy)


async def test_a_proxy_bans_nobody_over_a_size(
    registry: FakeRegistry, mallory: FakeRegistry, both: Lab, client: aiohttp.ClientSession
) -> None:
    with recorded(49, "HEAD of a listed registry lies", "to another proxy") as record:
        registry.add_image("library/app", "1", [LAYER])
        mallory._blobs["mallory/x", DIGEST] = bytes(len(LAYER) - 1)
        await both.tracker()
        await both.proxy("A")
        for name in ("p", "q"):
            peer = await both.peer(name)
            await pull(client, url_of(peer.mirror))
        second = await both.proxy("B")
        base = url_of(second.registry)
        async with asked(client, "GET", base, "library/app/manifests/1") as answer:
            await answer.read()
        async with asked(client, "HEAD", base, f"mallory/x/blobs/{DIGEST}", "ghcr.io") as answer:
            assert answer.status == 200

        assert await read_blob(client, base, DIGEST) == LAYER

        node = second.running.node
        assert (node.core.trust.bans_total, dict(node.counters.rejected)) == (0, {})
        record.outcome = "blob right; 0 banned, 0 rejected"
        record.invariants = ["I2"]
