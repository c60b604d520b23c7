"""Which repository named which blob, and how long it says that it is.

Knowing a digest is no right to read it. A size is a claim of the repository that it was told for,
until bytes prove it: it speaks for no other repository, however many have the same blob.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
    """One link as a snapshot keeps it; the names with the sizes that they claim."""

    digest: Digest
    media_type: str
    is_manifest: bool
    names: tuple[tuple[ImageName, int | None], ...]
    delivered: tuple[str, ...] = ()
    """The upstreams that sent its bytes, or showed that they have them."""
    made_of: tuple[Digest, int] | None = None
    """The blob that this one was made of here, and its own size; then it has no names."""


@dataclass(slots=True)
class _Entry:
    media_type: str
    is_manifest: bool
    claims: dict[ImageName, int | None] = field(default_factory=dict)
    """In the order of their last use; None: no size is known for this one."""
    upstreams: dict[str, bool] = field(default_factory=dict)
    """All that ever named it, and whether they delivered it; as many as are configured."""
    refuted: dict[ImageName, int] = field(default_factory=dict)
    """Sizes that bytes disproved; a manifest that says them again is not believed."""
    made_of: tuple[Digest, int] | None = None
    """The blob that a proxy made this one of, and how long this one is."""


class Links:
    """Digest to repositories with their claims.

    Least recently used digests go beyond `links_max`.
    """

    def __init__(self, *, links_max: int = LINKS_MAX, names_max: int = NAMES_MAX) -> None:
        self._entries: LRUCache[Digest, _Entry] = LRUCache(links_max)
        self._names_max = names_max

    def __len__(self) -> int:
        return len(self._entries)

    def link(self, name: ImageName, info: ManifestInfo) -> None:
        """Take in what a manifest of `name` points to: children, or config and layers."""
        for _ in self.linking(name, info):
            pass

    def linking(self, name: ImageName, info: ManifestInfo) -> Iterator[Descriptor]:
        """`link` piece by piece: each descriptor is taken in when it is asked for."""
        for child in info.manifests:
            self._declare(name, child, is_manifest=True)
            yield child
        for blob in (*info.layers, *((info.config,) if info.config is not None else ())):
            self._declare(name, blob, is_manifest=False)
            yield blob

    def tell(
        self,
        name: ImageName,
        digest: Digest,
        size_bytes: int,
        *,
        media_type: str = "",
        is_manifest: bool = False,
    ) -> None:
        """Take in what the registry itself told: `name` has `digest`, and it is so long."""
        entry = self._entry(digest, media_type, is_manifest=is_manifest)
        entry.media_type = media_type or entry.media_type
        self._claim(entry, name, size_bytes)

    def derive(self, digest: Digest, layer: Digest, size_bytes: int) -> None:
        """We made `digest` of `layer`: it is in all repositories that have that, and in no other,
        also where one names it."""
        entry = self._entry(digest, "", is_manifest=False)
        entry.made_of = layer, size_bytes

    def made_of(self, digest: Digest) -> Digest | None:
        """The blob that a proxy made `digest` of; no registry has it."""
        entry = self._entries.get(digest)
        return entry.made_of[0] if entry is not None and entry.made_of is not None else None

    def media_type(self, digest: Digest) -> str:
        """As the last manifest that names it says."""
        entry = self._entries.get(digest)
        return "" if entry is None else entry.media_type

    def refute(
        self, name: ImageName, digest: Digest, size_bytes: int, actual_bytes: int | None
    ) -> None:
        """The body that the registry of `name` sends is not `size_bytes` long; what it is, if it
        told that, is claimed from now on."""
        entry = self._entries.get(digest)
        if entry is None or name not in entry.claims:
            return
        entry.refuted[name] = size_bytes
        if entry.claims[name] == size_bytes:
            entry.claims[name] = actual_bytes

    def delivered(self, upstream: str, digest: Digest) -> None:
        """Bytes of `upstream` had this digest, or were those that lie here."""
        if (entry := self._entries.get(digest)) is not None:
            entry.upstreams[upstream] = True

    def upstreams(self, digest: Digest) -> Mapping[str, bool]:
        """All upstreams that ever named `digest`, and whether they delivered it."""
        entry = self._entries.get(self.made_of(digest) or digest)
        return {} if entry is None else entry.upstreams

    def where(self, digest: Digest) -> list[ImageName]:
        """The repositories that have `digest`, the latest first."""
        entry = self._entries.get(self.made_of(digest) or digest)
        return [] if entry is None else list(reversed(entry.claims))

    def allowed(self, name: ImageName, digest: Digest) -> bool:
        entry = self._entries.get(self.made_of(digest) or digest)
        return entry is not None and name in entry.claims

    def claim(self, name: ImageName, digest: Digest) -> int | None:
        """Bytes as a manifest of `name`, or its registry, says; None where neither does."""
        entry = self._entries.get(digest)
        if entry is not None and entry.made_of is not None:
            return entry.made_of[1] if self.allowed(name, digest) else None
        return None if entry is None else entry.claims.get(name)

    def is_manifest(self, digest: Digest) -> bool:
        """Whether it may be one: it was sent as one, or an index lists it, as the caches of builds
        list layers. Only the endpoint that it is asked for at decides."""
        entry = self._entries.get(digest)
        return entry is not None and entry.is_manifest

    def records(self) -> Iterator[LinkRecord]:
        """What a snapshot has to keep, least recently used first."""
        for digest, entry in list(self._entries.items()):
            yield LinkRecord(
                digest,
                entry.media_type,
                entry.is_manifest,
                tuple(entry.claims.items()),
                tuple(host for host, delivered in entry.upstreams.items() if delivered),
                entry.made_of,
            )

    def restore(self, records: Iterable[LinkRecord]) -> None:
        """Take in a snapshot; what is known already stands above it."""
        for record in records:
            if record.digest not in self._entries:
                entry = _Entry(record.media_type, record.is_manifest)
                entry.claims = dict(record.names[-self._names_max :])
                entry.upstreams = dict.fromkeys((name.upstream for name in entry.claims), False)
                entry.upstreams.update(dict.fromkeys(record.delivered, True))
                entry.made_of = record.made_of
                self._entries[record.digest] = entry

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        for entry in self._entries.values():
            assert len(entry.claims) <= self._names_max
            assert entry.refuted.keys() <= entry.claims.keys(), "of names that are remembered"
            assert {name.upstream for name in entry.claims} <= entry.upstreams.keys()

    def _entry(self, digest: Digest, media_type: str, *, is_manifest: bool) -> _Entry:
        entry = self._entries.get(digest)
        if entry is None:
            entry = self._entries[digest] = _Entry(media_type, is_manifest)
        entry.is_manifest = entry.is_manifest or is_manifest
        return entry

    def _declare(self, name: ImageName, child: Descriptor, *, is_manifest: bool) -> None:
        entry = self._entry(child.digest, child.media_type, is_manifest=is_manifest)
        if entry.refuted.get(name) == child.size:
            self._claim(entry, name, entry.claims.get(name))
        else:
            self._claim(entry, name, child.size)

    def _claim(self, entry: _Entry, name: ImageName, size_bytes: int | None) -> None:
        entry.upstreams.setdefault(name.upstream, False)
        entry.claims.pop(name, None)
        entry.claims[name] = size_bytes
        if len(entry.claims) > self._names_max:
            oldest = next(iter(entry.claims))
            del entry.claims[oldest]
            entry.refuted.pop(oldest, None)
