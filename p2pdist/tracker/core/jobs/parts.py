"""What one kind of host needs of a job: its platform's share of every image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from p2pdist.model.control import (
    PROOF_PART_BYTES_MAX,
    PROOF_PARTS_MAX,
    BlobRef,
    PrewarmImage,
    ProofPart,
    SwarmKey,
    tag_swarm_key,
)
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import tag_key
from p2pdist.model.jobs import JobImage, JobSpec, PlatformImage
from p2pdist.oci.manifest import Platform, best_platform


@dataclass(slots=True, eq=False)
class Parts:
    """Shared by all hosts of a job that need the same."""

    images: tuple[PrewarmImage, ...]
    sizes: dict[SwarmKey, int]
    """Every key that has to lie at the host as a whole, with its bytes; 0 for manifests and tags,
    whose sizes a job does not know."""
    total_bytes: int

    def held_bytes(self, key: SwarmKey, held_chunks: int, complete: bool) -> int:
        size = self.sizes[key]
        if complete or not held_chunks:
            return size if complete else 0
        return min(size, held_chunks * geometry_for(size).chunk_size_bytes)

    def challenge(self, rng: Random) -> list[ProofPart]:
        """Choose a place in every manifest and blob (in `PROOF_PARTS_MAX` of them, where there are
        more): a host that lost any of them cannot answer."""
        keys = [key for key in self.sizes if not key.startswith("tag:")]
        if len(keys) > PROOF_PARTS_MAX:
            keys = rng.sample(keys, PROOF_PARTS_MAX)
        return [self._place(key, rng) for key in keys]

    def _place(self, key: SwarmKey, rng: Random) -> ProofPart:
        last = max(0, self.sizes[key] - PROOF_PART_BYTES_MAX)
        return ProofPart(key, rng.randint(0, last), PROOF_PART_BYTES_MAX)


def parts_of(spec: JobSpec, platform: str) -> Parts:
    """Return what a host of `platform` needs; ValueError where an image has nothing for it."""
    wanted = spec.platform or platform
    return _gather(((image, _choose(image, wanted)) for image in spec.images), tags=True)


def parts_of_all(spec: JobSpec, platforms: Iterable[str]) -> Parts:
    """Return what a proxy needs for hosts of these platforms; none of them: every platform's.

    No tags: a proxy signs what a tag stands for, it has no need to hold what others signed.
    """
    chosen: dict[tuple[int, str], tuple[JobImage, PlatformImage]] = {}
    for platform in [spec.platform] if spec.platform else set(platforms):
        for at, image in enumerate(spec.images):
            try:
                child = _choose(image, platform)
            except ValueError:
                continue  # the hosts of that platform say so themselves
            chosen[at, child.manifests[-1]] = image, child
    if not chosen:
        for at, image in enumerate(spec.images):
            chosen |= {(at, child.manifests[-1]): (image, child) for child in image.platforms}
    return _gather(chosen.values(), tags=False)


def _gather(chosen: Iterable[tuple[JobImage, PlatformImage]], *, tags: bool) -> Parts:
    images: list[PrewarmImage] = []
    sizes: dict[SwarmKey, int] = {}
    for image, child in chosen:
        blobs = [BlobRef(blob.digest, blob.size) for blob in child.blobs]
        images.append(
            PrewarmImage(image.upstream, image.repository, image.tag, child.manifests, blobs)
        )
        if image.tag and tags:
            sizes[tag_swarm_key(tag_key(image.upstream, image.repository, image.tag))] = 0
        sizes.update((SwarmKey(digest), 0) for digest in child.manifests)
        sizes.update((SwarmKey(blob.digest), blob.size) for blob in child.blobs)
    return Parts(tuple(images), sizes, sum(sizes.values()))


def _choose(image: JobImage, platform: str) -> PlatformImage:
    names = [_parse(child.platform) for child in image.platforms]
    wanted = _parse(platform)
    at = names.index(None) if None in names else None
    if at is None and wanted is not None:
        at = best_platform(names, wanted)
    if at is None:
        raise ValueError(f"{image} has nothing for {platform or 'a host of unknown platform'}")
    return image.platforms[at]


def _parse(text: str) -> Platform | None:
    """None for the empty text: any platform."""
    if not text:
        return None
    os, _, rest = text.lower().partition("/")
    architecture, _, variant = rest.partition("/")
    return Platform(os, architecture, variant)
