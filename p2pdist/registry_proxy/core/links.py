"""Which repository named which blob: knowing a digest is no right to read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache

from p2pdist.model.ids import Digest
from p2pdist.oci.manifest import Descriptor, ManifestInfo
from p2pdist.oci.names import ImageName

# 10,000 images with 20 blobs each; 100 MB of memory at most.
LINKS_MAX: Final = 200_000
# A base layer is in thousands of repositories; one that is dropped is asked for upstream again.
NAMES_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """One link as a snapshot keeps it."""

    digest: Digest
    size_bytes: int
    media_type: str
    is_manifest: bool
    names: tuple[ImageName, ...]


@dataclass(slots=True)
class _Entry:
    size_bytes: int
    media_type: str
    is_manifest: bool
    names: dict[ImageName, None] = field(default_factory=dict)
    """In the order of their last use."""
    disputed: bool = False
    """Two manifests declare different sizes; a registry's own word settles that."""
    settled: bool = False


class Links:
    """Digest to (repositories, size, kind); least recently used digests go beyond `links_max`."""

    def __init__(self, *, links_max: int = LINKS_MAX, names_max: int = NAMES_MAX) -> None:
        self._entries: LRUCache[Digest, _Entry] = LRUCache(links_max)
        self._names_max = names_max

    def __len__(self) -> int:
        return len(self._entries)

    def link(self, name: ImageName, info: ManifestInfo) -> None:
        """Take in what a manifest of `name` points to: children, or config and layers."""
        for child in info.manifests:
            self._declare(name, child, is_manifest=True)
        for blob in (*info.layers, *((info.config,) if info.config is not None else ())):
            self._declare(name, blob, is_manifest=False)

    def settle(
        self,
        name: ImageName,
        digest: Digest,
        size_bytes: int,
        *,
        media_type: str = "",
        is_manifest: bool = False,
    ) -> None:
        """Take in what the registry itself told: `name` has `digest`, and it is so long."""
        entry = self._entries.get(digest)
        if entry is None:
            entry = self._entries[digest] = _Entry(size_bytes, media_type, is_manifest)
        entry.size_bytes = size_bytes
        entry.media_type = media_type or entry.media_type
        entry.is_manifest = entry.is_manifest or is_manifest
        entry.settled, entry.disputed = True, False
        self._add_name(entry, name)

    def where(self, digest: Digest) -> list[ImageName]:
        """The repositories that have `digest`, the latest first."""
        entry = self._entries.get(digest)
        return [] if entry is None else list(reversed(entry.names))

    def allowed(self, name: ImageName, digest: Digest) -> bool:
        entry = self._entries.get(digest)
        return entry is not None and name in entry.names

    def size_of(self, digest: Digest) -> int | None:
        """Bytes; None where nobody told, or two told different things."""
        entry = self._entries.get(digest)
        return None if entry is None or entry.disputed else entry.size_bytes

    def is_manifest(self, digest: Digest) -> bool:
        entry = self._entries.get(digest)
        return entry is not None and entry.is_manifest

    def records(self) -> Iterator[LinkRecord]:
        """What a snapshot has to keep, least recently used first."""
        for digest, entry in list(self._entries.items()):
            if not entry.disputed:
                yield LinkRecord(
                    digest,
                    entry.size_bytes,
                    entry.media_type,
                    entry.is_manifest,
                    tuple(entry.names),
                )

    def restore(self, records: Iterable[LinkRecord]) -> None:
        """Take in a snapshot; what is known already stands above it."""
        for record in records:
            if record.digest not in self._entries:
                entry = _Entry(record.size_bytes, record.media_type, record.is_manifest)
                entry.names = dict.fromkeys(record.names[-self._names_max :])
                self._entries[record.digest] = entry

    def _declare(self, name: ImageName, child: Descriptor, *, is_manifest: bool) -> None:
        entry = self._entries.get(child.digest)
        if entry is None:
            entry = _Entry(child.size, child.media_type, is_manifest)
            self._entries[child.digest] = entry
        elif entry.size_bytes != child.size and not entry.settled:
            entry.disputed = True
        entry.is_manifest = entry.is_manifest or is_manifest
        self._add_name(entry, name)

    def _add_name(self, entry: _Entry, name: ImageName) -> None:
        entry.names.pop(name, None)
        entry.names[name] = None
        if len(entry.names) > self._names_max:
            del entry.names[next(iter(entry.names))]
