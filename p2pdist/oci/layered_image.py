"""What an image is made of, as a mirror tells whoever mounts it: which archive is in which blob."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from p2pdist.model.geometry import BLOB_SIZE_MAX_BYTES
from p2pdist.model.ids import Digest, parse_digest
from p2pdist.oci.chains import chain_ids
from p2pdist.oci.image_config import LAYERS_MAX
from p2pdist.oci.names import ImageName
from p2pdist.oci.reference import image_name

QUESTION: Final = "/v2/_p2pdist/image"
"""Where a mirror answers `?chain=<chain ID>`, an extension as the distribution specification has
them; 404 for one that no image has that was asked for of late."""
BODY_BYTES_MAX: Final = 1 << 20
"""1,024 layers have a fifth of that."""


@dataclass(frozen=True, slots=True)
class ImageLayer:
    digest: Digest
    """Of the blob, compressed as it may be."""
    size_bytes: int
    """As a manifest declares it."""
    diff_id: Digest
    """Of the archive in it."""
    chain_id: Digest


@dataclass(frozen=True, slots=True)
class LayeredImage:
    name: ImageName
    """Where its blobs may be asked for."""
    layers: tuple[ImageLayer, ...]
    """From the lowest up."""


class _LayerJson(msgspec.Struct, frozen=True, rename="camel"):
    digest: Annotated[str, msgspec.Meta(max_length=255)]
    size: Annotated[int, msgspec.Meta(ge=0, le=BLOB_SIZE_MAX_BYTES)]
    diff_id: Annotated[str, msgspec.Meta(max_length=255)]


class _ImageJson(msgspec.Struct, frozen=True):
    upstream: Annotated[str, msgspec.Meta(max_length=255)]
    repository: Annotated[str, msgspec.Meta(max_length=255)]
    layers: Annotated[list[_LayerJson], msgspec.Meta(max_length=LAYERS_MAX)]


_decoder: Final = msgspec.json.Decoder(_ImageJson)


def layered_image(
    name: ImageName, blobs: Sequence[tuple[Digest, int]], diff_ids: Sequence[Digest]
) -> LayeredImage:
    """`blobs` with their sizes, as the manifest names them. Raises ValueError where its config
    names another number of layers."""
    if len(blobs) != len(diff_ids):
        raise ValueError(f"{len(blobs)} layers, and a config that names {len(diff_ids)}")
    parts = zip(blobs, diff_ids, chain_ids(diff_ids), strict=True)
    return LayeredImage(
        name, tuple(ImageLayer(*blob, diff_id, chain) for blob, diff_id, chain in parts)
    )


def encode_layered_image(image: LayeredImage) -> bytes:
    layers = [_LayerJson(layer.digest, layer.size_bytes, layer.diff_id) for layer in image.layers]
    return msgspec.json.encode(_ImageJson(image.name.upstream, image.name.repository, layers))


def decode_layered_image(body: bytes) -> LayeredImage:
    """Raises ValueError."""
    if len(body) > BODY_BYTES_MAX:
        raise ValueError(f"an answer of {len(body)} bytes")
    try:
        raw = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    return layered_image(
        image_name(raw.upstream, raw.repository),
        [(parse_digest(layer.digest), layer.size) for layer in raw.layers],
        [parse_digest(layer.diff_id) for layer in raw.layers],
    )
