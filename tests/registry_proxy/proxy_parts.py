"""What the proxy's tests share: a store in memory, a parent, a service before a registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from p2pdist.errors import StoreError, UpstreamError
from p2pdist.model.ids import Digest, TagKey
from p2pdist.model.statements import Keyring, Signer, TagStatement
from p2pdist.oci.names import ImageName
from p2pdist.process.clock import unix_s
from p2pdist.registry.ports import Manifest, PullContext, TagPage
from p2pdist.registry.reading.client import UpstreamClient, UpstreamEntry, UpstreamTimeouts
from p2pdist.registry.reading.credentials import fixed
from p2pdist.registry_proxy.core.tags import STALE_IF_ERROR_S, TagCache
from p2pdist.registry_proxy.manifests import ManifestService
from tests.fakes.registry import FakeRegistry

REPOSITORY = "library/app"
NAME = ImageName("registry.test", REPOSITORY)
OTHER = ImageName("registry.test", "library/other")


@dataclass(frozen=True)
class Small:
    media_type: str
    body: bytes


class MemoryStore:
    """Keeps everything until it is told to be full."""

    def __init__(self) -> None:
        self.smalls: dict[Digest, Small] = {}
        self.statements: dict[TagKey, bytes] = {}
        self.full = False

    def get(self, digest: Digest) -> None:
        """No blob of several chunks lies here."""

    async def get_small(self, digest: Digest) -> Small | None:
        return self.smalls.get(digest)

    async def put_small(self, digest: Digest, body: bytes, media_type: str = "") -> None:
        if self.full:
            raise StoreError("no room", full=True)
        self.smalls[digest] = Small(media_type, body)

    async def get_statement(self, key: TagKey) -> bytes | None:
        return self.statements.get(key)

    async def put_statement(self, key: TagKey, record: bytes, *, index: bool = False) -> None:
        if self.full:
            raise StoreError("no room", full=True)
        self.statements[key] = record


class FakeParent:
    """A proxy of another datacenter that knows what it was given, and is asked for the rest."""

    def __init__(self) -> None:
        self.manifests: dict[tuple[ImageName, str], Manifest] = {}
        self.sizes: dict[tuple[ImageName, Digest], int] = {}
        self.asked: list[str] = []

    async def manifest(self, name: ImageName, reference: str, *, timeout_s: float) -> Manifest:
        self.asked.append(reference)
        try:
            return self.manifests[name, reference]
        except KeyError:
            raise UpstreamError("unknown here", status=404) from None

    async def introduce(self, name: ImageName, digest: Digest, *, timeout_s: float) -> int:
        self.asked.append(digest)
        try:
            return self.sizes[name, digest]
        except KeyError:
            raise UpstreamError("unknown here", status=404) from None

    async def tags(self, name: ImageName, query: str, *, timeout_s: float) -> TagPage:
        raise UpstreamError("silent")

    async def referrers(
        self, name: ImageName, digest: Digest, artifact_type: str | None, *, timeout_s: float
    ) -> Manifest:
        raise UpstreamError("silent")


@dataclass
class Proxy:
    """A service and all that it stands on."""

    registry: FakeRegistry
    upstream: UpstreamClient
    store: MemoryStore
    signer: Signer
    keyring: Keyring
    service: ManifestService

    async def manifest(self, reference: str, name: ImageName = NAME) -> Manifest:
        return await self.service.manifest(name, reference, PullContext("test"))

    def statement_of(self, manifest: Manifest) -> TagStatement:
        statement = self.keyring.open(manifest.statement or b"")
        assert isinstance(statement, TagStatement)
        return statement


@asynccontextmanager
async def proxy_before(
    registry: FakeRegistry,
    *,
    parents: Sequence[FakeParent] = (),
    parent_signer: Signer | None = None,
    soft_ttl_s: float = 30.0,
    stale_after_s: float = 5.0,
    stale_if_error_s: float = STALE_IF_ERROR_S,
    store: MemoryStore | None = None,
    signer: Signer | None = None,
    expiry_unix_s: Callable[[], float] = unix_s,
    username: str = "",
    password: str = "",
    **entry: Any,
) -> AsyncIterator[Proxy]:
    store, signer = store or MemoryStore(), signer or Signer.generate()
    signers = [signer, *([parent_signer] if parent_signer is not None else [])]
    keyring = Keyring([s.public_key_bytes for s in signers])
    account = fixed(username, password) if username else None
    settings = {"host": NAME.upstream, "url": registry.url, "credentials": account, **entry}
    timeouts = UpstreamTimeouts(connect_s=2.0, headers_s=2.0, idle_s=2.0)
    async with UpstreamClient([UpstreamEntry(**settings)], timeouts=timeouts) as upstream:
        service = ManifestService(
            upstream,
            store,
            signer,
            keyring,
            parents=parents,
            tags=TagCache(
                soft_ttl_s=soft_ttl_s,
                stale_if_error_s=stale_if_error_s,
                negative_ttl_s=5.0 if soft_ttl_s else 0.0,
            ),
            stale_after_s=stale_after_s,
            expiry_unix_s=expiry_unix_s,
        )
        try:
            yield Proxy(registry, upstream, store, signer, keyring, service)
        finally:
            await service.close()
