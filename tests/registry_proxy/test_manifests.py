"""The proxy's manifests: how often upstream is asked, what is served in its place, and to whom."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from p2pdist.errors import ErrorReason, RegistryError
from p2pdist.model.clocks import CLOCK_TOLERANCE_S
from p2pdist.model.ids import digest_of, tag_key
from p2pdist.model.statements import Signer, TagStatement
from p2pdist.oci.manifest import OCI_INDEX, OCI_MANIFEST, media_type_of
from p2pdist.oci.names import ImageName
from p2pdist.process.clock import unix_s
from p2pdist.registry.ports import Manifest, client_accept
from p2pdist.registry_proxy.manifests import STATEMENT_LIFETIME_S
from tests.fakes.registry import FakeRegistry, Fault, ImageInfo
from tests.registry_proxy.proxy_parts import (
    NAME,
    OTHER,
    REPOSITORY,
    FakeParent,
    MemoryStore,
    Proxy,
    proxy_before,
)

LAYER = b"layer " * 1000
KEY = tag_key(NAME.upstream, NAME.repository, "1")
ACCOUNT = ("robot", "secret")


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def image(registry: FakeRegistry) -> ImageInfo:
    return registry.add_image(REPOSITORY, "1", [LAYER, b"two"])


@pytest.fixture
async def proxy(registry: FakeRegistry) -> AsyncIterator[Proxy]:
    async with proxy_before(registry) as proxy:
        yield proxy


def tag_changes(registry: FakeRegistry) -> ImageInfo:
    return registry.add_image(REPOSITORY, "1", [b"another layer"])


# --- how often upstream is asked ----------------------------------------------------------------


async def test_a_cold_tag_costs_one_head_and_one_get(proxy: Proxy, image: ImageInfo) -> None:
    found = await proxy.manifest("1")

    assert (found.digest, found.media_type) == (image.manifest_digest, OCI_MANIFEST)
    assert (found.body, found.stale) == (image.manifest_body, None)
    assert (proxy.registry.count("HEAD"), proxy.registry.count("GET")) == (1, 1)


async def test_rc49_all_who_ask_at_once_share_one_look_up(proxy: Proxy, image: ImageInfo) -> None:
    found = await asyncio.gather(*(proxy.manifest("1") for _ in range(50)))

    assert {manifest.digest for manifest in found} == {image.manifest_digest}
    assert (proxy.registry.count("HEAD"), proxy.registry.count("GET")) == (1, 1)


async def test_rc51_inside_its_ttl_a_tag_costs_nothing(proxy: Proxy, image: ImageInfo) -> None:
    await proxy.manifest("1")
    before = proxy.registry.count()

    await proxy.manifest("1")

    assert proxy.registry.count() == before


async def test_rc51_after_its_ttl_an_unchanged_tag_costs_one_head(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    async with proxy_before(registry, soft_ttl_s=0.0) as proxy:
        await proxy.manifest("1")
        await proxy.manifest("1")

    assert (registry.count("HEAD"), registry.count("GET")) == (2, 1)


async def test_a_tag_that_moved_is_followed(registry: FakeRegistry, image: ImageInfo) -> None:
    async with proxy_before(registry, soft_ttl_s=0.0) as proxy:
        await proxy.manifest("1")
        moved = tag_changes(registry)

        assert (await proxy.manifest("1")).digest == moved.manifest_digest


async def test_rc53_without_head_support_each_look_up_is_a_get(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(no_head=405, digest_header="")
    async with proxy_before(registry) as proxy:
        assert (await proxy.manifest("1")).digest == image.manifest_digest


async def test_a_digest_is_asked_for_once(proxy: Proxy, image: ImageInfo) -> None:
    await proxy.manifest(image.manifest_digest)
    before = proxy.registry.count()

    assert (await proxy.manifest(image.manifest_digest)).statement is None
    assert proxy.registry.count() == before


async def test_rc04_a_refusal_is_remembered_for_a_moment(proxy: Proxy, image: ImageInfo) -> None:
    for _ in range(3):
        with pytest.raises(RegistryError) as caught:
            await proxy.manifest("no-such-tag")

    assert (caught.value.status, caught.value.code) == (404, "MANIFEST_UNKNOWN")
    assert proxy.registry.count("GET") == 1


async def test_rc04_an_unknown_repository_is_called_so(proxy: Proxy, image: ImageInfo) -> None:
    with pytest.raises(RegistryError) as caught:
        await proxy.manifest("1", OTHER)

    assert (caught.value.status, caught.value.code) == (404, "NAME_UNKNOWN")


# --- statements ---------------------------------------------------------------------------------


async def test_a_tag_comes_with_a_signed_statement(proxy: Proxy, image: ImageInfo) -> None:
    statement = proxy.statement_of(await proxy.manifest("1"))

    assert (statement.key, statement.digest) == (KEY, image.manifest_digest)
    assert (statement.media_type, statement.size_bytes) == (OCI_MANIFEST, len(image.manifest_body))
    assert statement.expires_at_s == statement.issued_at_s + STATEMENT_LIFETIME_S


# --- silence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_rc52_an_outage_is_bridged_by_the_old_tag(
    registry: FakeRegistry, image: ImageInfo, status: int
) -> None:
    async with proxy_before(registry, soft_ttl_s=0.0) as proxy:
        await proxy.manifest("1")
        registry.faults["1"] = Fault(status=status)

        found = await proxy.manifest("1")

    assert found.digest == image.manifest_digest
    assert found.stale is not None
    assert proxy.service.stale_served_total == 1


@pytest.mark.parametrize(("status", "told"), [(401, 403), (403, 403), (404, 404)])
async def test_rc52_a_refusal_is_not_bridged(
    registry: FakeRegistry, image: ImageInfo, status: int, told: int
) -> None:
    async with proxy_before(registry, soft_ttl_s=0.0) as proxy:
        await proxy.manifest("1")
        registry.faults["1"] = Fault(status=status)

        with pytest.raises(RegistryError) as caught:
            await proxy.manifest("1")

    assert caught.value.status == told


async def test_a_slow_upstream_is_bridged_and_asked_on(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    async with proxy_before(registry, soft_ttl_s=0.0, stale_after_s=0.05) as proxy:
        await proxy.manifest("1")
        moved = tag_changes(registry)
        registry.faults["1"] = Fault(hang=True, times=1)

        old = await proxy.manifest("1")
        registry.release()
        async with asyncio.timeout(10):
            while (found := await proxy.manifest("1")).stale is not None:
                pass

    assert old.stale == "upstream is slow to answer"
    assert found.digest == moved.manifest_digest


async def test_an_outage_without_an_old_tag_is_no_404(proxy: Proxy, image: ImageInfo) -> None:
    proxy.registry.faults["1"] = Fault(status=503)

    with pytest.raises(RegistryError) as caught:
        await proxy.manifest("1")

    assert caught.value.status == 502


async def test_a_restart_forgets_no_tag(registry: FakeRegistry, image: ImageInfo) -> None:
    store, signer = MemoryStore(), Signer.generate()
    async with proxy_before(registry, store=store, signer=signer) as before:
        store.statements[KEY] = (await before.manifest("1")).statement or b""
    registry.faults["1"] = Fault(status=503)

    async with proxy_before(registry, store=store, signer=signer, soft_ttl_s=0.0) as after:
        found = await after.manifest("1")

    assert found.digest == image.manifest_digest
    assert found.stale is not None


async def test_a_tag_by_a_key_that_is_dropped_is_looked_up_anew(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    """However fresh: no host takes that word any more. The manifest lies here."""
    signer, other = Signer.generate(), Signer.generate()
    async with proxy_before(registry, signer=signer) as proxy:
        before = await proxy.manifest("1")
        proxy.keyring.replace([other.public_key_bytes])
        signer.turn_to(other)

        after = await proxy.manifest("1")

        assert after.digest == before.digest
        assert other.made(after.statement or b"")
        assert (registry.count("HEAD"), registry.count("GET")) == (2, 1)


async def test_nor_does_it_bridge_an_outage(registry: FakeRegistry, image: ImageInfo) -> None:
    async with proxy_before(registry, soft_ttl_s=0.0) as proxy:
        await proxy.manifest("1")
        proxy.keyring.replace([Signer.generate().public_key_bytes])
        registry.faults["1"] = Fault(status=503)

        with pytest.raises(RegistryError) as caught:
            await proxy.manifest("1")

    assert caught.value.status == 502


async def test_a_kept_statement_that_has_ended_is_not_believed(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    store, signer = MemoryStore(), Signer.generate()
    async with proxy_before(registry, store=store, signer=signer) as before:
        store.statements[KEY] = (await before.manifest("1")).statement or b""
    registry.faults["1"] = Fault(status=503)

    def later() -> float:
        return unix_s() + STATEMENT_LIFETIME_S + CLOCK_TOLERANCE_S + 60

    parts = proxy_before(
        registry,
        store=store,
        signer=signer,
        stale_if_error_s=30 * STATEMENT_LIFETIME_S,  # longer than anybody signs for
        expiry_unix_s=later,
    )
    async with parts as after:
        with pytest.raises(RegistryError):
            await after.manifest("1")


async def test_a_kept_statement_of_an_unknown_key_is_not_believed(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    store = MemoryStore()
    async with proxy_before(registry, store=store) as before:
        store.statements[KEY] = (await before.manifest("1")).statement or b""
    registry.faults["1"] = Fault(status=503)

    async with proxy_before(registry, store=store) as after:
        with pytest.raises(RegistryError):
            await after.manifest("1")


async def test_a_full_disk_makes_it_a_pass_through(proxy: Proxy, image: ImageInfo) -> None:
    proxy.store.full = True

    assert (await proxy.manifest("1")).body == image.manifest_body


# --- links --------------------------------------------------------------------------------------


async def test_a_served_image_links_its_blobs(proxy: Proxy, image: ImageInfo) -> None:
    await proxy.manifest("1")

    assert proxy.service.access.where(image.layer_digests[0]) == [NAME]
    assert proxy.service.links.claim(NAME, image.layer_digests[0]) == len(LAYER)


async def test_the_size_of_a_linked_blob_costs_nothing(proxy: Proxy, image: ImageInfo) -> None:
    await proxy.manifest("1")
    before = proxy.registry.count()

    assert await proxy.service.blob_size(NAME, image.layer_digests[0]) == len(LAYER)
    assert proxy.registry.count() == before


async def test_an_index_links_its_images_which_link_their_layers(proxy: Proxy) -> None:
    index, images = proxy.registry.add_index(
        REPOSITORY, "multi", {"amd64": [b"a"], "arm64": [b"b"]}
    )
    await proxy.manifest("multi")

    linked = [proxy.service.is_manifest(child.manifest_digest) for child in images]
    await proxy.manifest(images[1].manifest_digest)

    assert linked == [True, True]
    assert proxy.service.is_manifest(index)
    assert proxy.service.access.where(images[1].layer_digests[0]) == [NAME]
    assert proxy.service.access.where(images[0].layer_digests[0]) == []


async def test_an_unlinked_blob_is_asked_for_and_then_linked(
    proxy: Proxy, image: ImageInfo
) -> None:
    assert await proxy.service.blob_size(NAME, image.layer_digests[0]) == len(LAYER)
    assert proxy.service.access.where(image.layer_digests[0]) == [NAME]


async def test_rc61_a_blob_of_another_repository_is_not_there(
    proxy: Proxy, image: ImageInfo
) -> None:
    await proxy.manifest("1")

    with pytest.raises(RegistryError) as caught:
        await proxy.service.blob_size(OTHER, image.layer_digests[0])

    assert (caught.value.status, caught.value.code) == (404, "BLOB_UNKNOWN")


async def test_rc61_a_manifest_of_another_repository_is_not_there(
    proxy: Proxy, image: ImageInfo
) -> None:
    await proxy.manifest("1")

    with pytest.raises(RegistryError) as caught:
        await proxy.manifest(image.manifest_digest, OTHER)

    assert caught.value.status == 404


async def test_a_kept_manifest_is_linked_to_another_repository_that_delivers_it_once(
    proxy: Proxy, image: ImageInfo
) -> None:
    proxy.registry.add_image(OTHER.repository, "1", [LAYER, b"two"])
    await proxy.manifest("1")
    before = proxy.registry.count("GET")

    await proxy.manifest(image.manifest_digest, OTHER)
    await proxy.manifest(image.manifest_digest, OTHER)

    assert proxy.registry.count("GET") == before + 1
    assert proxy.service.access.where(image.layer_digests[0]) == [OTHER, NAME]


# --- whose authority ----------------------------------------------------------------------------


@pytest.mark.parametrize("access", ["public", "private"])
async def test_what_an_account_can_read_is_not_for_everybody(
    registry: FakeRegistry, image: ImageInfo, access: str
) -> None:
    registry.basic = ACCOUNT
    user, password = ACCOUNT
    async with proxy_before(registry, access=access, username=user, password=password) as proxy:
        for attempt in (
            proxy.manifest("1"),
            proxy.manifest(image.manifest_digest),
            proxy.service.blob_size(NAME, image.layer_digests[0]),
            proxy.service.lists.tags(NAME, ""),
            proxy.service.lists.referrers(NAME, image.manifest_digest, None),
        ):
            with pytest.raises(RegistryError) as caught:
                await attempt
            assert (caught.value.status, caught.value.code) == (403, "DENIED")

    assert registry.count() == 0


async def test_a_shared_account_serves_everybody(registry: FakeRegistry, image: ImageInfo) -> None:
    registry.basic = ACCOUNT
    user, password = ACCOUNT
    async with proxy_before(registry, access="shared", username=user, password=password) as proxy:
        assert (await proxy.manifest("1")).digest == image.manifest_digest


async def test_rc29_an_upstream_that_is_not_configured_is_denied(proxy: Proxy) -> None:
    with pytest.raises(RegistryError) as caught:
        await proxy.manifest("1", ImageName("elsewhere.test", "a"))

    assert (caught.value.status, caught.value.code) == (403, "DENIED")


# --- parents ------------------------------------------------------------------------------------


def told_by(signer: Signer, image: ImageInfo, **changes: object) -> Manifest:
    issued_s = int(unix_s())
    fields = {
        "key": KEY,
        "digest": image.manifest_digest,
        "media_type": image.media_type,
        "size_bytes": len(image.manifest_body),
        "issued_at_s": issued_s,
        "expires_at_s": issued_s + 60,
        **changes,
    }
    statement = signer.sign(TagStatement(**fields))  # type: ignore[arg-type]  # one of each
    return Manifest(image.manifest_digest, image.media_type, image.manifest_body, statement)


async def test_a_parent_is_asked_before_upstream(registry: FakeRegistry, image: ImageInfo) -> None:
    signer, parent = Signer.generate(), FakeParent()
    parent.manifests[NAME, "1"] = told_by(signer, image)
    async with proxy_before(registry, parents=[parent], parent_signer=signer) as proxy:
        found = await proxy.manifest("1")
        await proxy.manifest("1")

    assert found.statement == parent.manifests[NAME, "1"].statement
    assert (parent.asked, registry.count()) == (["1"], 0)


@pytest.mark.parametrize(
    "changes",
    [{"key": tag_key("x", "y", "z")}, {"digest": digest_of(b"another")}, {"expires_at_s": 1}],
    ids=["another tag", "another digest", "expired"],
)
async def test_a_parents_tag_without_a_right_statement_is_not_believed(
    registry: FakeRegistry, image: ImageInfo, changes: dict[str, object]
) -> None:
    signer, parent = Signer.generate(), FakeParent()
    parent.manifests[NAME, "1"] = told_by(signer, image, **changes)
    async with proxy_before(registry, parents=[parent], parent_signer=signer) as proxy:
        found = await proxy.manifest("1")

    assert found.statement != parent.manifests[NAME, "1"].statement
    assert registry.count("GET") == 1


async def test_a_parents_tag_signed_by_a_stranger_is_not_believed(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    parent = FakeParent()
    parent.manifests[NAME, "1"] = told_by(Signer.generate(), image)
    async with proxy_before(registry, parents=[parent]) as proxy:
        await proxy.manifest("1")

    assert registry.count("GET") == 1


async def test_a_parent_cannot_roll_a_tag_back(registry: FakeRegistry, image: ImageInfo) -> None:
    signer, parent = Signer.generate(), FakeParent()
    newer = told_by(signer, image)
    parent.manifests[NAME, "1"] = told_by(signer, image, issued_at_s=int(unix_s()) - 60)
    parts = proxy_before(registry, parents=[parent], parent_signer=signer, soft_ttl_s=0.0)
    async with parts as proxy:
        assert newer.statement is not None
        proxy.store.statements[KEY] = newer.statement
        found = await proxy.manifest("1")

    assert found.statement != parent.manifests[NAME, "1"].statement
    assert parent.asked == ["1"]


async def test_what_a_parent_does_not_know_comes_from_upstream(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    parent = FakeParent()
    async with proxy_before(registry, parents=[parent]) as proxy:
        assert (await proxy.manifest("1")).digest == image.manifest_digest
        size = await proxy.service.blob_size(OTHER, proxy.registry.add_blob(OTHER.repository, b"x"))

    assert size == 1
    assert len(parent.asked) == 2


async def test_a_parent_tells_sizes(registry: FakeRegistry) -> None:
    parent, digest = FakeParent(), digest_of(b"far away")
    parent.sizes[NAME, digest] = 8
    async with proxy_before(registry, parents=[parent]) as proxy:
        assert await proxy.service.blob_size(NAME, digest) == 8

    assert registry.count() == 0


# --- lists --------------------------------------------------------------------------------------


async def test_rc20_tags_are_passed_on(proxy: Proxy, image: ImageInfo) -> None:
    assert (await proxy.service.lists.tags(NAME, "")).tags == ["1"]


async def test_the_tags_of_an_unknown_repository_are_404(proxy: Proxy) -> None:
    with pytest.raises(RegistryError) as caught:
        await proxy.service.lists.tags(NAME, "")

    assert (caught.value.status, caught.value.code) == (404, "NAME_UNKNOWN")


def refer(registry: FakeRegistry, image: ImageInfo, artifact_type: str) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "subject": {"digest": image.manifest_digest},
        "config": {"mediaType": "x", "digest": image.config_digest, "size": 1},
        "layers": [],
    }
    body = json.dumps(document).encode()
    registry.add_manifest(REPOSITORY, body)
    return body


async def test_rc21_referrers_are_filtered_where_upstream_does_not(
    proxy: Proxy, image: ImageInfo
) -> None:
    wanted = refer(proxy.registry, image, "application/x.sbom")
    refer(proxy.registry, image, "application/x.signature")

    index = await proxy.service.lists.referrers(NAME, image.manifest_digest, "application/x.sbom")

    children = json.loads(index.body)["manifests"]
    assert [child["digest"] for child in children] == [digest_of(wanted)]


async def test_rc21_without_the_api_the_tag_schema_is_asked(proxy: Proxy, image: ImageInfo) -> None:
    proxy.registry.referrers_supported = False
    child = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"sbom"), "size": 4}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}
    tag = image.manifest_digest.replace(":", "-")
    proxy.registry.add_manifest(REPOSITORY, json.dumps(index).encode(), OCI_INDEX, tag=tag)

    found = await proxy.service.lists.referrers(NAME, image.manifest_digest, None)

    assert [c["digest"] for c in json.loads(found.body)["manifests"]] == [digest_of(b"sbom")]


async def test_rc21_no_referrers_are_an_empty_index(proxy: Proxy, image: ImageInfo) -> None:
    proxy.registry.referrers_supported = False

    found = await proxy.service.lists.referrers(NAME, image.manifest_digest, None)

    assert media_type_of(found.body) == OCI_INDEX
    assert json.loads(found.body)["manifests"] == []


# --- what is missing below a tag ------------------------------------------------------------------


async def test_a_manifest_that_is_gone_ends_the_freshness_of_its_tag(
    proxy: Proxy, image: ImageInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = asyncio.get_running_loop().time()
    monkeypatch.setattr(proxy.service, "_now_s", lambda: now_s)
    await proxy.manifest("1")
    moved = tag_changes(proxy.registry)
    now_s += 2
    proxy.registry.remove(REPOSITORY, image.manifest_digest)
    proxy.store.smalls.clear()

    with pytest.raises(RegistryError):
        await proxy.manifest(image.manifest_digest)

    assert (await proxy.manifest("1")).digest == moved.manifest_digest


async def test_what_a_repository_never_named_ends_nothing(
    proxy: Proxy, image: ImageInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = asyncio.get_running_loop().time()
    monkeypatch.setattr(proxy.service, "_now_s", lambda: now_s)
    await proxy.manifest("1")
    now_s += 2
    with pytest.raises(RegistryError):
        await proxy.manifest(digest_of(b"anything"))
    before = proxy.registry.count()

    await proxy.manifest("1")

    assert proxy.registry.count() == before


# --- types beyond ours ----------------------------------------------------------------------------


async def test_who_accepts_more_is_not_refused_for_the_others(proxy: Proxy) -> None:
    proxy.registry.strict_accept = True
    proxy.registry.add_manifest(REPOSITORY, b'{"items":[]}', "application/vnd.x+json", tag="1")
    with pytest.raises(RegistryError):
        await proxy.manifest("1")

    client_accept.set(("application/vnd.x+json",))

    found = await proxy.manifest("1")
    assert (found.media_type, found.body) == ("application/vnd.x+json", b'{"items":[]}')
    assert proxy.statement_of(found).media_type == "application/vnd.x+json"


async def test_an_index_of_ten_thousand_entries_links_them_all(proxy: Proxy) -> None:
    children = [{"digest": digest_of(b"%d" % n), "size": 9} for n in range(10_000)]
    body = json.dumps({"schemaVersion": 2, "manifests": children}).encode()
    proxy.registry.add_manifest(REPOSITORY, body, OCI_INDEX, tag="1")

    await proxy.manifest("1")

    assert all(proxy.service.links.allowed(NAME, digest_of(b"%d" % n)) for n in range(10_000))


async def test_work_of_our_own_has_no_caller_and_is_told_so(registry: FakeRegistry) -> None:
    """As prewarm jobs and replication are."""
    registry.add_image(REPOSITORY, "1", [b"layer"])
    async with proxy_before(registry, access="passthrough") as proxy:
        with pytest.raises(RegistryError, match="credentials of each caller") as caught:
            await proxy.manifest("1")

    assert (caught.value.status, caught.value.reason) == (403, ErrorReason.NOT_SHARED)
    assert registry.asked == []
