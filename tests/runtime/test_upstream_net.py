"""Which addresses an upstream may lead us to."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import UpstreamError
from p2pdist.runtime.upstream import BadAnswer
from p2pdist.runtime.upstream_net import address_allowed, parse_url
from tests.fakes.registry import FakeRegistry, Fault, ImageInfo
from tests.faults.records import recorded
from tests.runtime.upstream_parts import NAME, REPOSITORY, FakeDns, client_of, read_blob


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def image(registry: FakeRegistry) -> ImageInfo:
    return registry.add_image(REPOSITORY, "1", [b"layer " * 1000])


@pytest.mark.parametrize("text", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_allowed(text: str) -> None:
    assert address_allowed(ipaddress.ip_address(text), allow_private=False)


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"],
)
def test_private_addresses_are_for_those_who_may(text: str) -> None:
    address = ipaddress.ip_address(text)

    assert not address_allowed(address, allow_private=False)
    assert address_allowed(address, allow_private=True)


@pytest.mark.parametrize(
    "text",
    [
        "169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "240.0.0.1",
        "255.255.255.255", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_rc66_metadata_and_odd_addresses_are_for_nobody(text: str) -> None:
    assert not address_allowed(ipaddress.ip_address(text), allow_private=True)


@given(st.ip_addresses(v=4, network="127.0.0.0/8"))
def test_no_spelling_of_loopback_is_public(address: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")

    assert not address_allowed(address, allow_private=False)
    assert not address_allowed(mapped, allow_private=False)


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
    async with client_of(registry, dns=dns, url=f"http://registry.test:{port}") as client:
        with pytest.raises(UpstreamError, match="no address that may be reached"):
            await client.get_manifest(NAME, "1")

    assert registry.asked == []


async def test_a_private_upstream_is_reached_where_the_operator_allows_it(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    dns = FakeDns({"registry.test": "127.0.0.1"})
    port = registry.host.rpartition(":")[2]
    url = f"http://registry.test:{port}"
    async with client_of(registry, dns=dns, url=url, allow_private=True) as client:
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
    async with client_of(registry, dns=FakeDns({"rebound.test": "127.0.0.1"})) as client:
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


# --- names that do not resolve, or moved ----------------------------------------------------------


@pytest.mark.faults
async def test_a_registry_that_moved_is_found_at_once(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    with recorded(34, "DNS away", "registry moved") as record:
        dns = FakeDns({"registry.test": "127.0.0.2"})  # where nobody listens
        url = f"http://registry.test:{registry.host.rpartition(':')[2]}"
        async with client_of(registry, dns=dns, url=url, allow_private=True) as client:
            with pytest.raises(UpstreamError, match="cannot be reached"):
                await client.get_manifest(NAME, "1")
            dns.addresses["registry.test"] = "127.0.0.1"

            assert (await client.get_manifest(NAME, "1")).digest == image.manifest_digest
        record.outcome = "found at its new address with the next question"


async def test_a_kept_address_is_checked_like_any_other(registry: FakeRegistry) -> None:
    dns = FakeDns({"registry.test": "127.0.0.1"})
    url = f"http://registry.test:{registry.host.rpartition(':')[2]}"
    async with client_of(registry, dns=dns, url=url) as client:
        for _ in range(2):
            with pytest.raises(UpstreamError, match="cannot be reached"):
                await client.get_manifest(NAME, "1")
            dns.addresses.clear()

        assert client.kept_addresses_total > 0
    assert registry.asked == []
