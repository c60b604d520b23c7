"""Access that was withdrawn is: nothing leaves a proxy or a peer but what may be served now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from p2pdist.exchange import frames as fr
from p2pdist.model.control import digest_key
from p2pdist.model.ids import digest_of, tag_key
from p2pdist.model.members import Address
from p2pdist.peer.daemon import running_peer
from p2pdist.process.identity import read_secret
from p2pdist.registry_proxy.daemon import RunningProxy, running_proxy
from p2pdist.settings import Settings, Upstream
from tests.cluster.conftest import account_at
from tests.fakes.asker import asker
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry, ImageInfo, TokenAuth
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

LAYER = random_bytes(3_000_000, 94)
UNREAD = random_bytes(2_000_000, 95)
SMALL = random_bytes(1000, 96)
ACCOUNT = TokenAuth("robot", "secret")


@pytest.fixture
def image(registry: FakeRegistry) -> ImageInfo:
    registry.auth = ACCOUNT
    return registry.add_image("library/app", "1", [LAYER, SMALL, UNREAD])


@pytest.fixture
def account(registry: FakeRegistry, tmp_path: Path) -> Upstream:
    return account_at("docker.io", registry, ACCOUNT, tmp_path)


@asynccontextmanager
async def proxy_of(lab: Lab, *upstreams: Upstream) -> AsyncIterator[RunningProxy]:
    """The one proxy of the lab: a later one has the state of an earlier one."""
    settings: Settings = replace(lab.settings("proxy"), upstream=upstreams)
    async with running_proxy(settings) as proxy:
        yield proxy


async def filled(lab: Lab, client: aiohttp.ClientSession, image: ImageInfo, *ups: Upstream) -> None:
    """A proxy that read all but the last layer, and has ended."""
    async with proxy_of(lab, *ups) as proxy:
        base = f"{url_of(proxy.registry)}/v2/library/app"
        for what in ("manifests/1", *(f"blobs/{d}" for d in image.layer_digests[:2])):
            async with client.get(f"{base}/{what}") as answer:
                assert answer.status == 200
                await answer.read()
        assert proxy.running.store.get(image.layer_digests[0]) is not None


async def leaves(lab: Lab, node: Address, image: ImageInfo, proxy: RunningProxy) -> list[str]:
    """What another host of the cluster gets of the image over the exchange."""
    layer, small, unread, *_ = image.layer_digests
    got = []
    async with asker(node, read_secret(lab.keys.secret_file)) as asking:
        for digest in (small, image.manifest_digest):
            if await asking.get_small(digest) is not None:
                got.append("small")
        if await asking.get_statement(tag_key("docker.io", "library/app", "1")) is not None:
            got.append("statement")
        for digest in (layer, unread):
            got += [type(frame).__name__ for frame in await asking.say_interest(digest)]
        if (blob := proxy.running.store.get(layer)) is not None:
            map_id = blob.chunk_map.map_id
            if await asking.request(layer, map_id) is not None:
                got.append("chunk")
    return got


@pytest.mark.parametrize("how", ["made private", "no longer shared", "taken out of the list"])
async def test_what_was_shared_and_is_no_more_leaves_by_no_way(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    image: ImageInfo,
    account: Upstream,
    how: str,
) -> None:
    with recorded(53, "access withdrawn", how) as record:
        await lab.tracker()
        await filled(lab, client, image, account)
        before = len(registry.asked)
        now = {
            "made private": replace(account, access="private"),
            "no longer shared": replace(account, access="public"),
            "taken out of the list": replace(account, host="quay.io"),
        }[how]
        async with proxy_of(lab, now) as proxy:
            announced = {delta.key for delta in proxy.running.node.tracker_side.full_announce()}
            got = await leaves(lab, proxy.running.exchange_address, image, proxy)
            for what in ("manifests/1", *(f"blobs/{digest}" for digest in image.layer_digests)):
                url = f"{url_of(proxy.registry)}/v2/library/app/{what}"
                async with client.get(url) as answer:
                    assert answer.status in (403, 404)

        assert got == []
        digests = (*image.layer_digests, image.manifest_digest)
        assert not announced & {digest_key(digest) for digest in digests}
        assert registry.asked[before:] == []
        record.outcome = "nothing served, announced or asked for"


async def test_what_is_shared_leaves_after_a_restart(
    lab: Lab, client: aiohttp.ClientSession, image: ImageInfo, account: Upstream
) -> None:
    """The questions of the test above are right ones."""
    await lab.tracker()
    await filled(lab, client, image, account)

    async with proxy_of(lab, account) as proxy:
        announced = {delta.key for delta in proxy.running.node.tracker_side.full_announce()}
        got = await leaves(lab, proxy.running.exchange_address, image, proxy)

    assert {"small", "statement", "MapRecord", "chunk"} <= set(got)
    assert {digest_key(image.layer_digests[0]), digest_key(image.manifest_digest)} <= announced


async def test_what_a_public_repository_has_as_well_is_still_served(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    image: ImageInfo,
    account: Upstream,
) -> None:
    await lab.tracker()
    async with FakeRegistry() as public:
        public.add_image("open/app", "1", [LAYER, b"another"])
        listed = Upstream("ghcr.io", public.url)
        await filled(lab, client, image, account, listed)
        private = replace(account, access="private")
        async with proxy_of(lab, private, listed) as proxy:
            base = url_of(proxy.registry)
            async with client.get(f"{base}/v2/open/app/manifests/1?ns=ghcr.io") as answer:
                assert answer.status == 200
            got = await leaves(lab, proxy.running.exchange_address, image, proxy)

    assert {"MapRecord", "chunk"} <= set(got)
    assert not {"small", "statement"} & set(got)


async def test_a_proxy_that_lost_its_links_serves_again_what_is_asked_for_by_name(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    await lab.tracker()
    async with lab.proxy_context() as proxy:
        await pull(client, url_of(proxy.registry))
    lab.proxies.clear()
    (lab.directory / "proxy" / "proxy" / "links.v2.zst").unlink()
    before = registry.payload_bytes[digest_of(LAYER)]
    async with lab.proxy_context() as proxy:
        peer = await lab.peer("a")

        bodies = await pull(client, url_of(peer.mirror))

        assert bodies[digest_of(LAYER)] == LAYER
        assert not peer.running.node.counters.fallbacks
    assert registry.payload_bytes[digest_of(LAYER)] == before


async def test_a_peer_keeps_what_it_read_of_a_private_registry_to_its_host(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """One that asks for no account, but answers to this host's address only."""
    with recorded(53, "access withdrawn", "private at a peer") as record:
        image = registry.add_image("library/app", "1", [LAYER, SMALL])
        await lab.tracker()
        settings = lab.settings("a")
        private = Upstream("docker.io", registry.url, access="private")
        settings = replace(settings, peer=replace(settings.peer, direct=True), upstream=(private,))
        async with running_peer(settings) as peer:
            bodies = await pull(client, url_of(peer.mirror))
            assert bodies[digest_of(LAYER)] == LAYER

            announced = peer.running.node.tracker_side.full_announce()
            secret = read_secret(lab.keys.secret_file)
            async with asker(peer.running.exchange_address, secret) as asking:
                told = [
                    await asking.get_small(digest)
                    for digest in (image.manifest_digest, image.config_digest, digest_of(SMALL))
                ]
                heard = await asking.say_interest(digest_of(LAYER))

        assert announced == []
        assert told == [None, None, None]
        assert not [frame for frame in heard if isinstance(frame, fr.MapRecord | fr.Offer)]
        record.outcome = "served to its host, to nobody else"
