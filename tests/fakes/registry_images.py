"""Images made of any bytes: the manifests that name them, in OCI's and Docker's spelling."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


@dataclass(frozen=True)
class ImageInfo:
    """Where an image lies, and the digests of its parts."""

    repository: str
    tag: str
    manifest_digest: Digest
    config_digest: Digest
    layer_digests: list[Digest]
    media_type: str
    manifest_body: bytes


@dataclass(frozen=True)
class BuiltImage:
    config: bytes
    layers: list[bytes]
    manifest: bytes
    media_type: str


def build_image(
    layers: Sequence[bytes],
    *,
    docker: bool = False,
    architecture: str = "amd64",
    archives: Sequence[bytes] | None = None,
    settings: Mapping[str, object] | None = None,
) -> BuiltImage:
    """Describe `layers` as an image; they count as uncompressed tars, whatever they are, unless
    `archives` are what they hold. `settings`: what a container of it runs."""
    config = _json(
        {
            "architecture": architecture,
            "os": "linux",
            "config": dict(settings or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(a) for a in archives or layers]},
        }
    )
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    config_type, layer_type = (
        (_DOCKER_CONFIG, _DOCKER_LAYER) if docker else (_OCI_CONFIG, _OCI_LAYER)
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": _descriptor(config, config_type),
        "layers": [_descriptor(layer, _typed(layer, layer_type)) for layer in layers],
    }
    return BuiltImage(config, list(layers), _json(manifest), media_type)


def build_index(images: Sequence[tuple[BuiltImage, str]], *, docker: bool = False) -> bytes:
    """An index over (image, architecture) pairs."""
    children = [
        _descriptor(image.manifest, image.media_type)
        | {"platform": {"os": "linux", "architecture": architecture}}
        for image, architecture in images
    ]
    media_type = DOCKER_LIST if docker else OCI_INDEX
    return _json({"schemaVersion": 2, "mediaType": media_type, "manifests": children})


def _typed(layer: bytes, layer_type: str) -> str:
    """Engines go by the type, and not by the bytes."""
    gzip = layer.startswith(b"\x1f\x8b") and layer_type == _OCI_LAYER
    return f"{layer_type}+gzip" if gzip else layer_type


def _descriptor(body: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(body), "size": len(body)}


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
