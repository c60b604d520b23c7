"""An image store as containers/storage reads it (Podman, Buildah, CRI-O): layers that an engine
need not fetch, and no images. An engine that pulls an image keeps its own record of it.

    overlay/<layer>/diff, link, lower     the layer, its short name, those of the layers below it
    overlay/l/<short>                     the layer by its short name
    overlay-layers/layers.json            all of them (`layers.go` there)
    overlay-images/images.json            none
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from p2pdist.model.ids import Digest, digest_of

PLAIN, GZIP, ZSTD = 0, 2, 4
"""As numbered in `pkg/archive` there."""
MOUNT_BYTES_MAX: Final = 3500
"""Of 4096 for all that is said of a mount: an engine names each layer by its path, and its own
places beside. It fails for more, where layers are of another store than its own."""


@dataclass(frozen=True, slots=True)
class StoredLayer:
    id: str
    parent: str
    """Empty: none."""
    number: int
    """Its short name; never used again."""
    created: str
    """RFC 3339."""
    blob: Digest
    blob_bytes: int
    diff_id: Digest
    diff_bytes: int
    compression: int


class _LayerJson(msgspec.Struct, omit_defaults=True):
    id: str
    created: str
    blob: str = msgspec.field(name="compressed-diff-digest")
    blob_bytes: int = msgspec.field(name="compressed-size")
    diff_id: str = msgspec.field(name="diff-digest")
    diff_bytes: int = msgspec.field(name="diff-size")
    compression: int = 0
    parent: str = ""


def layer_ids(diff_ids: Sequence[Digest]) -> Iterator[str]:
    """What engines call the layers of an image (containers/image, `storage_dest.go`), from the
    lowest up: not their chain IDs."""
    below = ""
    for diff_id in diff_ids:
        plain = diff_id.partition(":")[2]
        below = _sha256(f"{below}+{plain}") if below else plain
        yield below


def _sha256(text: str) -> str:
    return digest_of(text.encode()).partition(":")[2]


def layers_json(layers: Iterable[StoredLayer]) -> bytes:
    return msgspec.json.encode(
        [
            _LayerJson(
                id=layer.id, created=layer.created, blob=layer.blob, blob_bytes=layer.blob_bytes,
                diff_id=layer.diff_id, diff_bytes=layer.diff_bytes, compression=layer.compression,
                parent=layer.parent,
            )
            for layer in layers
        ]
    )  # fmt: skip


def short_name(number: int) -> str:
    """Engines give their own layers 26 letters; shorter ones leave room for more layers."""
    return f"p{number}"


def lower_of(layer: StoredLayer, layers: Mapping[str, StoredLayer]) -> str:
    """What `lower` says: the short names of those below, from the top one down; empty: none."""
    return ":".join(f"l/{short_name(below.number)}" for below in below_of(layer, layers))


def below_of(layer: StoredLayer, layers: Mapping[str, StoredLayer]) -> list[StoredLayer]:
    found: list[StoredLayer] = []
    while (layer_below := layers.get(layer.parent)) is not None:
        found.append(layer_below)
        layer = layer_below
    return found


def too_many(layers: int, store: str) -> bool:
    """Whether an image of so many layers cannot be mounted out of a store at that path."""
    return layers * len(f"{store}/overlay/l/p1000000:") > MOUNT_BYTES_MAX


# --- what is in use -------------------------------------------------------------------------------


class _EngineLayer(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(max_length=4096)]
    parent: Annotated[str, msgspec.Meta(max_length=4096)] = ""


class _EngineImage(msgspec.Struct):
    layer: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    mapped: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=4096)]], msgspec.Meta(max_length=4096)
    ] = msgspec.field(name="mapped-layers", default_factory=list)


_layers_decoder: Final = msgspec.json.Decoder(list[_EngineLayer])
_images_decoder: Final = msgspec.json.Decoder(list[_EngineImage])


def named_by_layers(body: bytes) -> set[str]:
    """The layers that those of an engine lie upon, as its `layers.json` says. Raises ValueError."""
    try:
        return {layer.parent for layer in _layers_decoder.decode(body or b"[]")} - {""}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None


def named_by_images(body: bytes) -> set[str]:
    """The layers that an engine's images are made of, as its `images.json` says; of each the top
    one. Raises ValueError."""
    try:
        images = _images_decoder.decode(body or b"[]")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    return {name for image in images for name in (image.layer, *image.mapped)} - {""}


def mounted(mountinfo: str, store: str) -> set[int]:
    """The numbers of layers of `store` that overlay mounts are made of, as a `mountinfo` says."""
    return {int(n) for n in re.findall(re.escape(f"{store}/overlay/l/p") + r"(\d{1,9})", mountinfo)}


def unused(
    layers: Mapping[str, StoredLayer], named: set[str], mounted: set[int], fresh: set[str]
) -> list[str]:
    """The layers that may go, from the top ones down: not those that are `named`, `mounted` or
    `fresh` (asked for of late), and none that lies below one of these."""
    kept: set[str] = set()
    for layer in layers.values():
        if layer.id in named or layer.id in fresh or layer.number in mounted:
            kept |= {layer.id, *(below.id for below in below_of(layer, layers))}
    gone = [layer for layer in layers.values() if layer.id not in kept]
    return [layer.id for layer in sorted(gone, key=lambda layer: -layer.number)]
