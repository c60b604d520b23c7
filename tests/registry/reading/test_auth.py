"""Credentials: to whom they go, how often a token is fetched, what is never sent or said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from p2pdist.errors import UpstreamError
from p2pdist.oci.credential_files import Account
from p2pdist.oci.names import ImageName
from p2pdist.registry.reading import auth, credentials
from p2pdist.registry.reading.credentials import Credentials
from tests.fakes.registry import FakeRegistry, Fault, ImageInfo, TokenAuth
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

PASSWORD = "correct horse"
ACCOUNT: dict[str, Any] = {"username": "robot", "password": PASSWORD}


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        registry.auth = TokenAuth()
        yield registry


@pytest.fixture
def image(registry: FakeRegistry) -> ImageInfo:
    return registry.add_image(REPOSITORY, "1", [b"layer " * 1000])


async def test_rc57_an_anonymous_token_is_fetched_once(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    async with client_of(registry) as client:
        await client.get_manifest(NAME, "1")
        await read_blob(client, image.layer_digests[0])

    assert registry.count("GET", "/token") == 1
    assert client.token_requests_total == 1


async def test_rc57_parallel_requests_share_one_token_request(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    async with client_of(registry) as client:
        await asyncio.gather(*(client.get_manifest(NAME, "1") for _ in range(10)))

    assert registry.count("GET", "/token") == 1


async def test_rc57_a_401_in_mid_life_costs_one_refresh(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    async with client_of(registry) as client:
        await client.get_manifest(NAME, "1")
        registry.revoke_tokens()
        await asyncio.gather(*(client.get_manifest(NAME, "1") for _ in range(5)))

    assert registry.count("GET", "/token") == 2


async def test_rc57_each_repository_has_its_own_token(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    registry.add_image("other", "1", [b"x"])
    async with client_of(registry) as client:
        await client.get_manifest(NAME, "1")
        await client.get_manifest(ImageName(NAME.upstream, "other"), "1")

    scopes = [asked.query["scope"] for asked in registry.asked if asked.path == "/token"]
    assert scopes == [f"repository:{REPOSITORY}:pull", "repository:other:pull"]


@pytest.mark.parametrize(
    "auth",
    [
        TokenAuth(token_key="access_token"),
        TokenAuth(expires_in=None),
        TokenAuth(extra_challenges=('Negotiate abc==, Basic realm="a, b"',)),
        TokenAuth(username="robot", password=PASSWORD),
        TokenAuth(username="robot", password=PASSWORD, methods=("POST",)),
    ],
    ids=["access_token", "no expires_in", "several challenges", "account by GET", "by POST"],
)
async def test_rc57_ways_to_a_token(
    registry: FakeRegistry, image: ImageInfo, auth: TokenAuth
) -> None:
    registry.auth = auth
    async with client_of(registry, **ACCOUNT) as client:
        assert (await client.get_manifest(NAME, "1")).digest == image.manifest_digest


async def test_a_registry_at_an_ipv6_address_has_its_tokens_there() -> None:
    async with FakeRegistry("::1") as registry:
        registry.auth = TokenAuth()
        image = registry.add_image(REPOSITORY, "1", [b"x"])
        async with client_of(registry, host=registry.host) as client:
            found = await client.get_manifest(ImageName(registry.host, REPOSITORY), "1")

    assert found.digest == image.manifest_digest
    assert registry.count("GET", "/token") == 1


async def test_rc57_a_refresh_token_is_posted(registry: FakeRegistry, image: ImageInfo) -> None:
    registry.auth = TokenAuth(username="robot", password="refresh-me", methods=("POST",))
    async with client_of(registry, username="<token>", password="refresh-me") as client:
        assert (await client.get_manifest(NAME, "1")).digest == image.manifest_digest

    assert registry.count("GET", "/token") == 0


async def test_a_token_that_is_about_to_expire_is_not_used(
    registry: FakeRegistry, image: ImageInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_s, real = 0.0, auth._now_s
    monkeypatch.setattr(auth, "_now_s", lambda: real() + passed_s)
    registry.auth = TokenAuth(expires_in=300)
    async with client_of(registry) as client:
        await client.get_manifest(NAME, "1")
        passed_s = 299.0
        await client.get_manifest(NAME, "1")

    assert registry.count("GET", "/token") == 2
    assert [asked.status for asked in registry.asked if asked.path != "/token"].count(401) == 2


async def test_basic_is_sent_after_a_challenge_and_then_at_once(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    registry.auth, registry.basic = None, ("robot", PASSWORD)
    async with client_of(registry, **ACCOUNT) as client:
        await client.get_manifest(NAME, "1")
        await client.get_manifest(NAME, "1")

    assert [asked.status for asked in registry.asked] == [401, 200, 200]


async def test_a_basic_challenge_without_an_account_is_401(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    registry.auth, registry.basic = None, ("robot", PASSWORD)
    async with client_of(registry) as client:
        with pytest.raises(UpstreamError) as caught:
            await client.get_manifest(NAME, "1")

    assert caught.value.status == 401


async def test_a_wrong_password_is_401_without_a_second_try(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    registry.auth = TokenAuth(username="robot", password="another")
    async with client_of(registry, **ACCOUNT) as client:
        with pytest.raises(UpstreamError) as caught:
            await client.get_manifest(NAME, "1")

    assert caught.value.status == 401
    assert registry.count(path_part="/token") == 1


@pytest.mark.parametrize("basic", [True, False])
async def test_a_password_that_was_changed_is_read_anew(
    registry: FakeRegistry, image: ImageInfo, monkeypatch: pytest.MonkeyPatch, basic: bool
) -> None:
    """The registry's and its token service's, without a restart."""

    def change(password: str) -> None:
        registry.auth = None if basic else TokenAuth(username="robot", password=password)
        registry.basic = ("robot", password) if basic else None
        told["password"] = password

    told: dict[str, str] = {}
    change("old")
    robot = Credentials("registry.test", lambda: Account("robot", told["password"]))
    monkeypatch.setattr(credentials, "RETRY_S", 0.0)
    async with client_of(registry, credentials=robot) as client:
        await client.get_manifest(NAME, "1")
        change("new")
        assert await read_blob(client, image.layer_digests[0]) == b"layer " * 1000


async def test_a_401_without_a_challenge_is_followed_by_a_ping(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(status=401, times=1)
    async with client_of(registry) as client:
        assert (await client.get_manifest(NAME, "1")).digest == image.manifest_digest

    assert [a.path for a in registry.asked][1:3] == ["/v2/", "/token"]


@pytest.mark.parametrize("realm", ["http://169.254.169.254/token", "https://evil.test/token"])
async def test_rc58_no_credential_goes_to_a_foreign_realm(
    registry: FakeRegistry, image: ImageInfo, realm: str
) -> None:
    registry.auth = TokenAuth(realm=realm)
    dns = FakeDns({"evil.test": "127.0.0.1"})
    async with client_of(registry, dns=dns, allow_private=LOOPBACK, **ACCOUNT) as client:
        with pytest.raises(UpstreamError, match="foreign token service"):
            await client.get_manifest(NAME, "1")

    assert dns.asked == []


async def test_rc58_a_token_is_for_what_we_pull_whatever_the_challenge_wishes(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    """Else whoever answers in a registry's name gets a token with all rights of our account."""
    registry.auth = TokenAuth(
        "robot", PASSWORD, scope="repository:prod/db:pull,push,delete registry:catalog:*"
    )
    async with client_of(registry, **ACCOUNT) as client:
        await client.get_manifest(NAME, "1")

    scopes = [asked.query["scope"] for asked in registry.asked if asked.path == "/token"]
    assert scopes == [f"repository:{REPOSITORY}:pull"]


async def test_rc58_no_token_is_asked_for_in_another_registrys_name(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    registry.auth = TokenAuth("robot", PASSWORD, service="other-registry.corp")
    async with client_of(registry, **ACCOUNT) as client:
        with pytest.raises(UpstreamError, match="another registry"):
            await client.get_manifest(NAME, "1")

    assert registry.count("GET", "/token") == 0


async def test_rc58_a_realm_that_the_operator_named_is_used(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    port = registry.host.rpartition(":")[2]
    registry.auth = TokenAuth(
        realm=f"http://auth.elsewhere.test:{port}/token", username="robot", password=PASSWORD
    )
    dns = FakeDns({"auth.elsewhere.test": "127.0.0.1"})
    async with client_of(
        registry,
        dns=dns,
        allow_private=places("auth.elsewhere.test"),
        auth_hosts=("auth.elsewhere.test",),
        **ACCOUNT,
    ) as client:
        assert (await client.get_manifest(NAME, "1")).digest == image.manifest_digest


async def test_rc55_no_authorization_goes_along_with_a_redirect_to_another_port(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    digest = image.layer_digests[0]
    registry.faults[f"/v2/{REPOSITORY}/blobs/{digest}"] = Fault(
        redirect=f"{registry.storage_url}/storage/{{digest}}"
    )
    async with client_of(registry) as client:
        await read_blob(client, digest)

    assert registry.asked[-1].path.startswith("/storage/")
    assert registry.asked[-1].authorization is None


async def test_rc63_neither_password_nor_token_is_in_errors_or_representations(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    registry.auth = TokenAuth(username="robot", password="another")
    async with client_of(registry, **ACCOUNT) as client:
        with pytest.raises(UpstreamError) as caught:
            await client.get_manifest(NAME, "1")

    entry = entry_for(registry, **ACCOUNT)
    assert PASSWORD not in str(caught.value) + repr(entry) + repr(Account("robot", PASSWORD))
