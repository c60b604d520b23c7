"""An upstream's content, and a registry backend that serves it without any network."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from p2pdist.errors import BlobFailed, RegistryError
from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.manifest import media_type_of
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import BlobSource, FileSpan, Manifest, PullContext, TagPage
from tests.fakes.tag_paging import by_next_page


@dataclass
class SeededContent:
    """What the upstreams of a test hold, and what they were asked for."""

    manifests: dict[tuple[ImageName, str], bytes] = field(default_factory=dict)
    """By tag and by digest."""
    blobs: dict[tuple[ImageName, Digest], bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """One entry per request that reached an upstream (`blob docker.io/library/app sha256:…`)."""

    def seed(
        self,
        upstream: str,
        repository: str,
        *,
        tag: str | None = None,
        manifest: bytes | None = None,
        blobs: tuple[bytes, ...] = (),
    ) -> list[Digest]:
        """Add content; return the digests of `manifest` (if any) and `blobs`, in this order."""
        name, digests = ImageName(upstream, repository), []
        if manifest is not None:
            digest = digest_of(manifest)
            digests.append(digest)
            self.manifests[name, digest] = manifest
            if tag is not None:
                self.manifests[name, tag] = manifest
        for blob in blobs:
            digests.append(digest_of(blob))
            self.blobs[name, digests[-1]] = blob
        return digests

    def knows(self, name: ImageName) -> bool:
        return any(key[0] == name for key in (*self.manifests, *self.blobs))

    def tags(self, name: ImageName) -> list[str]:
        return sorted(ref for n, ref in self.manifests if n == name and ":" not in ref)


class FakeSource:
    """A cold blob comes as bytes in pieces, a warm one from a file; both may be told to fail."""

    def __init__(
        self, digest: Digest, data: bytes, *, fileno: int | None, piece_bytes: int
    ) -> None:
        self.digest = digest
        self.size_bytes = len(data)
        self.closed = False
        self.closed_while_reading = False
        self.fail_at: int | None = None
        """Offset at which the last source dies."""
        self._data = data
        self._fileno = fileno
        self._piece_bytes = piece_bytes
        self._reading = False

    async def read(self, start: int, stop: int) -> AsyncIterator[FileSpan | bytes]:
        self._reading = True
        try:
            for at in range(start, stop, self._piece_bytes):
                if self.fail_at is not None and at >= self.fail_at:
                    raise BlobFailed("no source is left")
                end = min(at + self._piece_bytes, stop)
                if self._fileno is not None:
                    yield FileSpan(self._fileno, at, end - at)
                else:
                    yield self._data[at:end]
        finally:
            self._reading = False

    def close(self) -> None:
        assert not self.closed, "a source is closed once"
        self.closed = True
        self.closed_while_reading = self._reading
        if self._fileno is not None:
            os.close(self._fileno)


class FakeBackend:
    """Serves `content`: what was asked for once is warm and reaches no upstream any more."""

    def __init__(self, content: SeededContent, directory: Path, *, piece_bytes: int = 1000) -> None:
        self.content = content
        self.opened: list[FakeSource] = []
        self.fail_at: int | None = None
        self.refusal: Exception | None = None
        """Raised for every request instead of an answer."""
        self.manifest_answer: Manifest | None = None
        """Returned for every manifest instead of the content's."""
        self.contexts: list[PullContext] = []
        self._directory = directory
        self._piece_bytes = piece_bytes
        self._warm: set[tuple[ImageName, str]] = set()

    async def manifest(self, name: ImageName, reference: str, context: PullContext) -> Manifest:
        self._begin(context)
        if self.manifest_answer is not None:
            return self.manifest_answer
        self._ask("manifest", name, reference)
        body = self.content.manifests.get((name, reference))
        if body is None:
            code = "MANIFEST_UNKNOWN" if self.content.knows(name) else "NAME_UNKNOWN"
            raise RegistryError(404, code, f"{name} has no {reference}")
        self._warm.add((name, reference))
        return Manifest(digest_of(body), media_type_of(body), body)

    async def blob_size(self, name: ImageName, digest: Digest, context: PullContext) -> int:
        self._begin(context)
        return len(self._blob(name, digest))

    async def open_blob(self, name: ImageName, digest: Digest, context: PullContext) -> BlobSource:
        self._begin(context)
        warm = (name, digest) in self._warm
        data = self._blob(name, digest)
        fileno = self._open_file(digest, data) if warm else None
        source = FakeSource(digest, data, fileno=fileno, piece_bytes=self._piece_bytes)
        source.fail_at = self.fail_at
        self._warm.add((name, digest))
        self.opened.append(source)
        context.bytes_by_source["cache" if warm else "upstream"] = len(data)
        return source

    async def tags(self, name: ImageName, query: str, context: PullContext) -> TagPage:
        self._ask("tags", name, "")
        if not self.content.knows(name):
            raise RegistryError(404, "NAME_UNKNOWN", f"{name} is unknown")
        asked, tags = dict(parse_qsl(query)), self.content.tags(name)
        page = by_next_page(tags, asked, int(asked.get("n", len(tags))))
        return TagPage(list(page.tags), page.link)

    async def referrers(
        self, name: ImageName, digest: Digest, artifact_type: str | None, context: PullContext
    ) -> Manifest:
        self._ask("referrers", name, digest)
        media_type = "application/vnd.oci.image.index.v1+json"
        body = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % media_type.encode()
        return Manifest(digest_of(body), media_type, body)

    async def layer_index(self, name: ImageName, digest: Digest, context: PullContext) -> Digest:
        raise RegistryError(404, "BLOB_UNKNOWN", f"{name} has no index of {digest}")

    def _begin(self, context: PullContext) -> None:
        self.contexts.append(context)
        if self.refusal is not None:
            raise self.refusal

    def _ask(self, what: str, name: ImageName, reference: str) -> None:
        if (name, reference) not in self._warm:
            self.content.requests.append(f"{what} {name} {reference}")

    def _blob(self, name: ImageName, digest: Digest) -> bytes:
        self._ask("blob", name, digest)
        try:
            return self.content.blobs[name, digest]
        except KeyError:
            raise RegistryError(404, "BLOB_UNKNOWN", f"{name} has no {digest}") from None

    def _open_file(self, digest: Digest, data: bytes) -> int:
        path = self._directory / digest.replace(":", "-")
        path.write_bytes(data)
        # What aiohttp's FileResponse would serve instead (statement 13).
        path.with_name(path.name + ".gz").write_bytes(b"\x1f\x8b not this")
        return os.open(path, os.O_RDONLY)
