"""Which addresses an upstream may lead us to."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from typing import cast
from unittest.mock import create_autospec

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from p2pdist.errors import UpstreamError
from p2pdist.model.private_places import PrivatePlace
from p2pdist.registry.reading.client import BadAnswer, UpstreamEntry
from p2pdist.registry.reading.net import UpstreamNet, UpstreamTimeouts, parse_url
from tests.fakes.registry import FakeRegistry, Fault, ImageInfo
from tests.faults.records import recorded
from tests.registry.reading.upstream_parts import (
    LOOPBACK,
    NAME,
    REPOSITORY,
    FakeDns,
    client_of,
    entry_for,
    places,
    read_blob,
)


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def image(registry: FakeRegistry) -> ImageInfo:
    return registry.add_image(REPOSITORY, "1", [b"layer " * 1000])


@given(st.text())
def test_an_url_is_http_without_credentials_or_refused(text: str) -> None:
    try:
        url = parse_url(text)
    except BadAnswer:
        return
    assert url.scheme in ("http", "https")
    assert url.host
    assert url.user is None


async def test_rc66_a_name_that_resolves_to_loopback_is_refused(registry: FakeRegistry) -> None:
    dns = FakeDns({"registry.test": "127.0.0.1"})
    port = registry.host.rpartition(":")[2]
    url = f"http://registry.test:{port}"
    async with client_of(registry, dns=dns, url=url, allow_private=()) as client:
        with pytest.raises(UpstreamError, match="no address that may be reached"):
            await client.get_manifest(NAME, "1")

    assert registry.asked == []


async def test_a_private_upstream_is_reached_where_the_operator_allows_it(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    dns = FakeDns({"registry.test": "127.0.0.1"})
    port = registry.host.rpartition(":")[2]
    url = f"http://registry.test:{port}"
    async with client_of(registry, dns=dns, url=url, allow_private=LOOPBACK) as client:
        assert (await client.get_manifest(NAME, "1")).digest == image.manifest_digest


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/{digest}", "http://[::1]:1/{digest}", "http://10.0.0.1/{digest}"],
)
async def test_rc66_a_redirect_to_a_forbidden_address_is_refused(
    registry: FakeRegistry, image: ImageInfo, location: str
) -> None:
    digest = image.layer_digests[0]
    registry.faults[f"/v2/{REPOSITORY}/blobs/{digest}"] = Fault(redirect=location)
    async with client_of(registry) as client:
        with pytest.raises(BadAnswer, match="must not be reached"):
            await read_blob(client, digest)


async def test_rc66_a_redirect_to_a_name_of_a_forbidden_address_is_refused(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    digest = image.layer_digests[0]
    port = registry.storage_url.rpartition(":")[2]
    registry.faults[f"/v2/{REPOSITORY}/blobs/{digest}"] = Fault(
        redirect=f"http://rebound.test:{port}/storage/{{digest}}"
    )
    dns = FakeDns({"rebound.test": "127.0.0.1"})
    async with client_of(registry, dns=dns, allow_private=()) as client:
        with pytest.raises(UpstreamError, match="no address that may be reached"):
            await read_blob(client, digest)

    assert registry.count(path_part="/storage/") == 0


async def test_a_redirect_with_credentials_in_its_url_is_refused(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    digest = image.layer_digests[0]
    registry.faults[f"/v2/{REPOSITORY}/blobs/{digest}"] = Fault(
        redirect=f"http://user:pw@{registry.host}/storage/{{digest}}"
    )
    async with client_of(registry) as client:
        with pytest.raises(BadAnswer, match="plain http"):
            await read_blob(client, digest)


@pytest.mark.faults
@pytest.mark.parametrize("allowed", [(), places("10.0.0.0/8"), places("127.0.0.1:1")])
async def test_a_private_registry_does_not_open_what_stands_beside_it(
    registry: FakeRegistry, image: ImageInfo, allowed: tuple[PrivatePlace, ...]
) -> None:
    digest = image.layer_digests[0]
    registry.faults[f"/v2/{REPOSITORY}/blobs/{digest}"] = Fault(
        redirect=f"{registry.storage_url}/storage/{{digest}}"
    )
    named = ", ".join(map(str, allowed)) or "nothing"
    with recorded(71, "registry that leads to another private port", f"named: {named}") as record:
        async with client_of(registry, allow_private=allowed) as client:
            with pytest.raises(BadAnswer, match="must not be reached"):
                await read_blob(client, digest)

        assert registry.count(path_part="/storage/") == 0
        record.outcome = "refused, nobody asked there"


async def test_what_one_registry_may_reach_another_may_not(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    """Connections and names that the first one had are no way there for the second."""
    digest = image.layer_digests[0]
    port = registry.storage_url.rpartition(":")[2]
    storage = f"http://storage.test:{port}/storage/{digest}"
    may = entry_for(registry, allow_private=places(f"storage.test:{port}"))
    may_not = entry_for(registry, host="other.test", allow_private=())
    net = UpstreamNet(UpstreamTimeouts(), FakeDns({"storage.test": "127.0.0.1"}))
    try:
        async with await net.ask(may, "GET", parse_url(storage), {}) as answer:
            await answer.read()  # so the connection is kept
        with pytest.raises(UpstreamError, match="no address that may be reached"):
            await net.ask(may_not, "GET", parse_url(storage), {})
    finally:
        await net.close()


# --- encryption is not given up -------------------------------------------------------------------


class _ScriptedNet(UpstreamNet):
    """Answers redirects by a script, as no server with a certificate would here."""

    def __init__(self, locations: Mapping[str, str]) -> None:
        super().__init__(UpstreamTimeouts(), FakeDns({}))
        self._locations = locations
        self.asked: list[str] = []

    async def ask(
        self,
        entry: UpstreamEntry,
        method: str,
        target: URL,
        headers: Mapping[str, str],
        *,
        form: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        self.asked.append(str(target))
        answer = create_autospec(aiohttp.ClientResponse, instance=True)
        location = self._locations.get(str(target))
        answer.status = 200 if location is None else 307
        answer.headers = {} if location is None else {"Location": location}
        return cast(aiohttp.ClientResponse, answer)


async def _hops(start: str, locations: Mapping[str, str]) -> list[str]:
    net = _ScriptedNet(locations)
    try:
        await net.follow(UpstreamEntry("r.test", start), "GET", start, {}, authorization=None)
    finally:
        await net.close()
    return net.asked


@pytest.mark.parametrize(
    "locations",
    [
        {"https://r.test/m": "http://r.test/m?sig=SECRET"},
        {"https://r.test/m": "https://cdn.test/m", "https://cdn.test/m": "http://x.test/?SECRET"},
        {"https://r.test/m": "HTTP://r.test/SECRET"},
    ],
)
async def test_a_redirect_from_https_to_http_is_refused(
    locations: Mapping[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(BadAnswer, match="https to http"):
        await _hops("https://r.test/m", locations)

    assert "upstream.downgrade" in caplog.text
    assert "SECRET" not in caplog.text


async def test_a_registry_without_encryption_may_lead_to_either() -> None:
    locations = {
        "http://r.test/m": "http://cdn.test/m",
        "http://cdn.test/m": "https://cdn.test/m",
        "https://cdn.test/m": "/n",
    }

    hops = await _hops("http://r.test/m", locations)

    assert hops == [*locations, "https://cdn.test/n"]


# --- names that do not resolve, or moved ----------------------------------------------------------


@pytest.mark.faults
async def test_a_registry_that_moved_is_found_at_once(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    with recorded(34, "DNS away", "registry moved") as record:
        dns = FakeDns({"registry.test": "127.0.0.2"})  # where nobody listens
        url = f"http://registry.test:{registry.host.rpartition(':')[2]}"
        async with client_of(registry, dns=dns, url=url, allow_private=LOOPBACK) as client:
            with pytest.raises(UpstreamError, match="cannot be reached"):
                await client.get_manifest(NAME, "1")
            dns.addresses["registry.test"] = "127.0.0.1"

            assert (await client.get_manifest(NAME, "1")).digest == image.manifest_digest
        record.outcome = "found at its new address with the next question"


async def test_a_kept_address_is_checked_like_any_other(registry: FakeRegistry) -> None:
    dns = FakeDns({"registry.test": "127.0.0.1"})
    url = f"http://registry.test:{registry.host.rpartition(':')[2]}"
    async with client_of(registry, dns=dns, url=url, allow_private=()) as client:
        for _ in range(2):
            with pytest.raises(UpstreamError, match="cannot be reached"):
                await client.get_manifest(NAME, "1")
            dns.addresses.clear()

        assert client.kept_addresses_total > 0
    assert registry.asked == []
