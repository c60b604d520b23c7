"""The image that the fleet is given: its bytes are in memory once, for all hosts to prove."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Final

from blake3 import blake3

from p2pdist.model.control import Prove, SwarmKey, digest_key, tag_swarm_key
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import Digest, digest_of, tag_key
from p2pdist.model.jobs import Blob, JobImage, PlatformImage

UPSTREAM: Final = "registry.bench"
REPOSITORY: Final = "team/app"
TAG: Final = "v1"
PLATFORM: Final = "linux/amd64"
# Larger ones would change nothing: a proof hashes 4 KiB of each.
LAYERS: Final = 5
LAYER_BYTES: Final = 8 << 20
CONFIG_BYTES: Final = 3000


@dataclass(frozen=True, slots=True)
class Content:
    """`small` lies at a host with its order's first answer: manifests, tag and config."""

    image: JobImage
    blobs: dict[Digest, bytes]
    small: tuple[SwarmKey, ...]
    layers: tuple[SwarmKey, ...]

    @property
    def keys(self) -> tuple[SwarmKey, ...]:
        return self.small + self.layers

    def chunks(self, key: SwarmKey) -> int:
        body = self.blobs.get(Digest(key))
        return 1 if body is None else geometry_for(len(body)).chunk_count

    def prove(self, asked: Prove) -> bytes:
        """The right answer; empty for what is no part of the image."""
        hasher = blake3(key=asked.key)
        for part in asked.parts:
            body = self.blobs.get(Digest(part.digest))
            if body is None:
                return b""
            hasher.update(body[part.offset : part.offset + part.length])
        return hasher.digest()


def make_content(rng: Random) -> Content:
    config = rng.randbytes(CONFIG_BYTES)
    bodies = [rng.randbytes(LAYER_BYTES) for _ in range(LAYERS)]
    blobs = {digest_of(body): body for body in (config, *bodies)}
    manifest_body = json.dumps(list(blobs)).encode()
    manifest = digest_of(manifest_body)
    index_body = manifest.encode()
    index = digest_of(index_body)
    sizes = [Blob(digest, len(body)) for digest, body in blobs.items()]
    platform = PlatformImage(PLATFORM, [index, manifest], sizes)
    image = JobImage(UPSTREAM, REPOSITORY, TAG, index, [platform])
    tag = tag_swarm_key(tag_key(UPSTREAM, REPOSITORY, TAG))
    small = (digest_key(index), digest_key(manifest), tag, digest_key(digest_of(config)))
    blobs |= {manifest: manifest_body, index: index_body}
    return Content(image, blobs, small, tuple(digest_key(digest_of(body)) for body in bodies))
