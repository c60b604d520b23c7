"""An error keeps its meaning from the registry through proxy and peer; one list, at the proxy."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from p2pdist.errors import ErrorReason
from p2pdist.model.geometry import CHUNK_SIZE_MIN_BYTES
from p2pdist.model.ids import Digest, digest_of
from p2pdist.peer.daemon import RunningPeer, running_peer
from p2pdist.registry_proxy.daemon import RunningProxy, running_proxy
from p2pdist.settings import Upstream
from tests.cluster.conftest import account_at
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import random_bytes
from tests.fakes.registry import FakeRegistry, Fault, TokenAuth
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

CORP = "registry.corp:5443"
NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def registry_with_image(registry: FakeRegistry) -> FakeRegistry:
    registry.add_image("team/app", "1", [b"layer" * 1000])
    return registry


@asynccontextmanager
async def proxy_of(lab: Lab, *upstreams: Upstream) -> AsyncIterator[RunningProxy]:
    settings = replace(lab.settings("proxy"), upstream=upstreams)
    async with running_proxy(settings) as proxy:
        lab.proxies[:] = [url_of(proxy.registry)]
        yield proxy


@asynccontextmanager
async def peer_of(lab: Lab, *upstreams: Upstream) -> AsyncIterator[RunningPeer]:
    """Knows no registry but those that its proxies tell of, and `upstreams`."""
    async with running_peer(replace(lab.settings("peer"), upstream=upstreams)) as peer:
        yield peer


async def asked(
    client: aiohttp.ClientSession, base: str, kind: str = "manifests", ref: str = "1",
    registry: str = CORP,
) -> tuple[int, str, str]:  # fmt: skip
    """Status, code and detail."""
    async with client.get(f"{base}/v2/team/app/{kind}/{ref}?ns={registry}") as answer:
        body = json.loads(await answer.read()) if answer.status != 200 else {}
        assert "WWW-Authenticate" not in answer.headers
    error = body.get("errors", [{}])[0]
    return answer.status, error.get("code", ""), error.get("detail", "")


def faulty(registry: FakeRegistry, status: int) -> Upstream:
    registry.faults["1"] = Fault(status=status)
    return Upstream(CORP, registry.url)


def wrong_password(registry: FakeRegistry, directory: Path) -> Upstream:
    registry.auth = TokenAuth("robot", "right")
    return account_at(CORP, registry, TokenAuth("robot", "wrong"), directory)


ARRANGED: dict[ErrorReason, tuple[Any, int, str]] = {
    ErrorReason.UNKNOWN: (lambda r, d: faulty(r, 404), 404, "MANIFEST_UNKNOWN"),
    ErrorReason.DENIED: (lambda r, d: faulty(r, 403), 403, "DENIED"),
    ErrorReason.CREDENTIALS: (wrong_password, 403, "UNAUTHORIZED"),
    ErrorReason.RATE_LIMITED: (lambda r, d: faulty(r, 429), 502, "MANIFEST_UNKNOWN"),
    ErrorReason.REGISTRY_ERROR: (lambda r, d: faulty(r, 500), 502, "MANIFEST_UNKNOWN"),
    ErrorReason.REGISTRY_DOWN: (lambda r, d: Upstream(CORP, NOBODY), 502, "MANIFEST_UNKNOWN"),
    ErrorReason.REGISTRY_TLS: (
        lambda r, d: Upstream(CORP, r.url.replace("http:", "https:")), 502, "MANIFEST_UNKNOWN",
    ),
    ErrorReason.NOT_SHARED: (
        lambda r, d: replace(account_at(CORP, r, TokenAuth("a", "b"), d), access="private"),
        403, "DENIED",
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", ARRANGED)
async def test_a_runtime_is_told_at_the_peer_what_the_proxy_heard(
    registry_with_image: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    tmp_path: Path,
    reason: ErrorReason,
) -> None:
    arrange, status, code = ARRANGED[reason]
    with recorded(79, "errors keep their meaning through proxy and peer", reason) as record:
        upstream = arrange(registry_with_image, tmp_path)
        async with proxy_of(lab, upstream) as proxy, peer_of(lab) as peer:
            for base in (url_of(proxy.registry), url_of(peer.mirror)):
                assert await asked(client, base) == (status, code, reason)
        record.outcome = f"{status} {code}, detail {reason}, at both"


async def test_a_peer_passes_on_in_which_words_the_proxy_refuses(
    registry_with_image: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    upstream = faulty(registry_with_image, 403)
    async with proxy_of(lab, upstream) as proxy, peer_of(lab) as peer:
        said = []
        for base in (url_of(proxy.registry), url_of(peer.mirror)):
            async with client.get(f"{base}/v2/team/app/manifests/1?ns={CORP}") as answer:
                said.append(json.loads(await answer.read())["errors"][0]["message"])

    assert CORP in said[0]
    assert said[1] == said[0]


async def test_without_a_proxy_the_runtime_is_told_so(
    lab: Lab, client: aiohttp.ClientSession
) -> None:
    lab.proxies[:] = [NOBODY]

    async with peer_of(lab) as peer:
        told = await asked(client, url_of(peer.mirror))

    assert told == (502, "MANIFEST_UNKNOWN", "no_proxy")


async def test_lists_have_their_reasons(
    registry_with_image: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry_with_image.faults["/v2/team/app/tags/list"] = Fault(status=403)

    async with proxy_of(lab, Upstream(CORP, registry_with_image.url)), peer_of(lab) as peer:
        told = await asked(client, url_of(peer.mirror), "tags", "list")

    assert told == (403, "DENIED", "denied")


BLOBS: dict[ErrorReason, Any] = {
    ErrorReason.UNKNOWN: lambda r, d: Upstream(CORP, r.url),
    ErrorReason.CREDENTIALS: wrong_password,
    ErrorReason.REGISTRY_DOWN: lambda r, d: Upstream(CORP, NOBODY),
}


@pytest.mark.parametrize("reason", BLOBS)
async def test_a_blob_is_404_with_the_reason(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    tmp_path: Path,
    reason: ErrorReason,
) -> None:
    """At the peer, too: it asks by HEAD, whose answer has no body to name one."""
    digest = "sha256:" + "0" * 64

    async with proxy_of(lab, BLOBS[reason](registry, tmp_path)) as proxy, peer_of(lab) as peer:
        for base in (url_of(proxy.registry), url_of(peer.mirror)):
            told = await asked(client, base, "blobs", digest)
            assert told == (404, "BLOB_UNKNOWN", reason), base


STATUSES = {
    ErrorReason.UNKNOWN: 404,
    ErrorReason.CREDENTIALS: 401,
    ErrorReason.DENIED: 403,
    ErrorReason.RATE_LIMITED: 429,
    ErrorReason.REGISTRY_ERROR: 500,
}
# Of a layer, the proxy tries these again for longer than a peer waits for its word.
MAY_PASS = {ErrorReason.RATE_LIMITED, ErrorReason.REGISTRY_ERROR, ErrorReason.REGISTRY_DOWN}


async def blobs_below_a_manifest(
    lab: Lab,
    client: aiohttp.ClientSession,
    registry: FakeRegistry,
    break_it: Callable[[list[Digest]], Awaitable[None]],
) -> dict[tuple[str, str], tuple[int, str, str]]:
    """What peer and proxy answer for the parts of an image whose manifest they got before
    `break_it`: a layer of several chunks, which is read beside, and a config of one."""
    layer = random_bytes(3 * CHUNK_SIZE_MIN_BYTES, 1)
    image = registry.add_image("team/app", "1", [layer])
    parts = {"large": digest_of(layer), "small": image.config_digest}
    async with proxy_of(lab, Upstream(CORP, registry.url)) as proxy, peer_of(lab) as peer:
        bases = {"peer": url_of(peer.mirror), "proxy": url_of(proxy.registry)}
        for base in bases.values():
            assert (await asked(client, base))[0] == 200
        await break_it(list(parts.values()))
        questions = list(itertools.product(bases, parts))
        told = await asyncio.gather(
            *(asked(client, bases[at], "blobs", parts[part]) for at, part in questions)
        )
    return dict(zip(questions, told, strict=True))


def expect_all_told(told: dict[tuple[str, str], tuple[int, str, str]], reason: ErrorReason) -> None:
    questions = itertools.product(("peer", "proxy"), ("large", "small"))
    expected = dict.fromkeys(questions, (404, "BLOB_UNKNOWN", reason))
    if reason in MAY_PASS:  # the proxy tries again: which of both gives up first is chance
        told = dict(told)
        assert told.pop(("peer", "large"))[2] in (ErrorReason.NO_SOURCE, reason)
        del expected["peer", "large"]
    assert told == expected


@pytest.mark.parametrize("reason", STATUSES)
async def test_a_blob_whose_manifest_was_served_is_404_with_the_reason(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, reason: ErrorReason
) -> None:
    """Its size is known then, and the question for that brings no reason to light."""

    async def break_it(digests: list[Digest]) -> None:
        registry.faults.update({digest: Fault(status=STATUSES[reason]) for digest in digests})

    expect_all_told(await blobs_below_a_manifest(lab, client, registry, break_it), reason)


async def test_a_blob_is_404_because_its_registry_went_away(
    lab: Lab, client: aiohttp.ClientSession
) -> None:
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(FakeRegistry())
        told = await blobs_below_a_manifest(lab, client, registry, lambda _: stack.aclose())

    expect_all_told(told, ErrorReason.REGISTRY_DOWN)


async def test_a_blob_without_a_proxy_is_404_for_that_reason(
    lab: Lab, client: aiohttp.ClientSession
) -> None:
    lab.proxies[:] = [NOBODY]

    async with peer_of(lab, Upstream(CORP, NOBODY)) as peer:
        told = await asked(client, url_of(peer.mirror), "blobs", "sha256:" + "0" * 64)

    assert told == (404, "BLOB_UNKNOWN", "no_proxy")


async def test_a_peer_that_asks_the_registry_itself_tells_what_that_said(
    lab: Lab, client: aiohttp.ClientSession
) -> None:
    lab.proxies[:] = [NOBODY]
    settings = lab.settings("peer")
    settings = replace(
        settings, peer=replace(settings.peer, direct=True), upstream=(Upstream(CORP, NOBODY),)
    )

    async with running_peer(settings) as peer:
        told = await asked(client, url_of(peer.mirror), "blobs", "sha256:" + "0" * 64)

    assert told == (404, "BLOB_UNKNOWN", "registry_down")


# --- one list of registries -----------------------------------------------------------------------


async def test_a_peer_serves_what_its_proxy_serves_without_entries_of_its_own(
    registry_with_image: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    async with proxy_of(lab, Upstream(CORP, registry_with_image.url)), peer_of(lab) as peer:
        base = url_of(peer.mirror)
        assert (await asked(client, base))[0] == 200
        async with client.get(f"{base}/v2/{CORP}/team/app/manifests/1") as by_path:
            assert by_path.status == 200
        async with client.get(f"{url_of(peer.admin)}/api/v1/status") as status:
            assert (await status.json())["registries"] == 1


async def test_rc29_an_unlisted_registry_is_404_at_once_and_nobody_is_asked(
    registry_with_image: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    corp = Upstream(CORP, registry_with_image.url)
    async with proxy_of(lab, corp) as proxy, peer_of(lab) as peer:
        assert (await asked(client, url_of(peer.mirror)))[0] == 200
        before = registry_with_image.count()
        for base in (url_of(proxy.registry), url_of(peer.mirror)):
            told = await asked(client, base, registry="elsewhere.test")
            assert told == (404, "NAME_UNKNOWN", "not_listed")
        async with client.get(f"{url_of(peer.admin)}/metrics") as metrics:
            text = await metrics.text()

    assert registry_with_image.count() == before
    assert 'p2pdist_requests_refused_total{reason="not_listed"} 1.0' in text


async def test_the_list_is_kept_while_the_proxy_is_away(
    registry_with_image: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """And the peer goes on serving what it holds, as before."""
    async with AsyncExitStack() as stack:
        async with proxy_of(lab, Upstream(CORP, registry_with_image.url)):
            peer = await stack.enter_async_context(peer_of(lab))
            base = url_of(peer.mirror)
            assert (await asked(client, base))[0] == 200

        assert (await asked(client, base))[0] == 200
        told = await asked(client, base, registry="elsewhere.test")

    assert told == (404, "NAME_UNKNOWN", "not_listed")


async def test_a_registry_that_was_added_at_the_proxy_is_served_by_the_next_look(
    registry_with_image: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    corp, other = (Upstream(host, registry_with_image.url) for host in (CORP, "other.test"))
    async with AsyncExitStack() as stack:
        async with proxy_of(lab, other) as proxy:
            listen = proxy.registry
            peer = await stack.enter_async_context(peer_of(lab))
            base = url_of(peer.mirror)
            assert (await asked(client, base, registry="other.test"))[0] == 200

        settings = lab.settings("proxy")
        again = replace(
            settings, upstream=(corp, other), proxy=replace(settings.proxy, listen=listen)
        )
        await stack.enter_async_context(running_proxy(again))
        assert (await asked(client, base))[0] == 200


async def test_own_entries_are_served_in_any_case(
    registry_with_image: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """What the proxy does not list, a peer with `direct` reads itself."""
    own = Upstream("own.test", registry_with_image.url)
    settings = replace(lab.settings("peer"), upstream=(own,))

    async with proxy_of(lab, Upstream(CORP, registry_with_image.url)):
        settings = replace(
            settings, peer=replace(settings.peer, proxies=tuple(lab.proxies), direct=True)
        )
        async with running_peer(settings) as peer:
            assert (await asked(client, url_of(peer.mirror), registry="own.test"))[0] == 200
