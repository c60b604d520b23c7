"""What has more than one chunk is never read or sent as a whole, whoever calls it small."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import aiohttp
import pytest

from p2pdist.model.ids import digest_of
from p2pdist.process.identity import read_secret
from p2pdist.registry_proxy.daemon import RunningProxy
from tests.cluster.lies import add_lying_image
from tests.fakes.asker import Asker, asker
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

LAYER = random_bytes(12 << 20, 91)
DIGEST = digest_of(LAYER)


def ask(lab: Lab, proxy: RunningProxy) -> AbstractAsyncContextManager[Asker]:
    return asker(proxy.running.exchange_address, read_secret(lab.keys.secret_file))


async def test_a_large_layer_asked_for_as_a_small_one_is_refused_unread(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    with recorded(54, "large layer asked for as a small blob", "size known") as record:
        registry.add_image("library/app", "1", [LAYER])
        await lab.tracker()
        proxy = await lab.proxy()
        async with client.get(f"{url_of(proxy.registry)}/v2/library/app/manifests/1") as answer:
            assert answer.status == 200

        async with ask(lab, proxy) as asking:
            assert await asking.get_small(DIGEST) is None

        assert registry.payload_bytes[DIGEST] == 0
        record.bytes = {"upstream": registry.payload_bytes[DIGEST]}
        record.outcome = "refused, nothing read"


async def test_a_manifest_that_calls_a_layer_small_is_believed_once(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """Registries mount layers across repositories and compare no sizes."""
    with recorded(54, "large layer asked for as a small blob", "called small") as record:
        add_lying_image(registry, LAYER, 10)
        await lab.tracker()
        proxy = await lab.proxy()
        base = f"{url_of(proxy.registry)}/v2/mallory/evil"
        async with client.get(f"{base}/manifests/1") as answer:
            assert answer.status == 200

        async with ask(lab, proxy) as asking:
            assert await asking.get_small(DIGEST) is None
            assert await asking.get_small(DIGEST) is None

        assert registry.count("GET", f"/blobs/{DIGEST}") == 1
        assert registry.payload_bytes[DIGEST] < len(LAYER)  # what sockets held of it
        record.bytes = {"upstream": registry.payload_bytes[DIGEST]}
        assert not proxy.running.store.has_small(DIGEST)
        async with client.get(f"{base}/blobs/{DIGEST}") as answer:
            assert await answer.read() == LAYER
        record.outcome = f"refused twice, read for the first only; all {len(LAYER):,} B over /v2/"


async def test_a_layer_that_lies_here_is_not_sent_as_a_whole(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    with recorded(54, "large layer asked for as a small blob", "in the store") as record:
        registry.add_image("library/app", "1", [LAYER])
        await lab.tracker()
        proxy = await lab.proxy()
        await pull(client, url_of(proxy.registry))
        before = registry.payload_bytes[DIGEST]

        async with ask(lab, proxy) as asking:
            assert await asking.get_small(DIGEST) is None
            assert await asking.get_small(digest_of(b"another")) is None  # nobody named it

        assert registry.payload_bytes[DIGEST] == before
        record.outcome = "refused, nothing read"
