"""The settings of an image, as its config blob holds them: its platform, what its layers are."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from p2pdist.model.ids import Digest, parse_digest
from p2pdist.oci.manifest import Platform

# Real ones are below 100 kB; artifacts put anything there.
CONFIG_BYTES_MAX: Final = 4 << 20
_Text = Annotated[str, msgspec.Meta(max_length=64)]
LAYERS_MAX: Final = 1024
"""Docker and containerd mount 127 at most."""
_LAYERS: Final = msgspec.Meta(max_length=LAYERS_MAX)


class _ConfigJson(msgspec.Struct, frozen=True):
    os: _Text
    architecture: _Text
    variant: _Text | None = None


_DECODER: Final = msgspec.json.Decoder(_ConfigJson)


class _RootfsJson(msgspec.Struct, frozen=True):
    diff_ids: Annotated[list[Annotated[str, msgspec.Meta(max_length=255)]], _LAYERS]


class _LayersJson(msgspec.Struct, frozen=True):
    rootfs: _RootfsJson


_LAYERS_DECODER: Final = msgspec.json.Decoder(_LayersJson)


def diff_ids_of_config(body: bytes) -> list[Digest]:
    """Return the digests of the layers' archives, uncompressed, from the lowest layer up.

    Raises ValueError for what is no config of an image.
    """
    if len(body) > CONFIG_BYTES_MAX:
        raise ValueError(f"a config of {len(body)} bytes")
    try:
        config = _LAYERS_DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it names no layers: {error}") from None
    return [parse_digest(text) for text in config.rootfs.diff_ids]


def platform_of_config(body: bytes) -> Platform | None:
    """Return what an image runs on; None where that is not said, as by artifacts."""
    if len(body) > CONFIG_BYTES_MAX:
        return None
    try:
        config = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not config.os or not config.architecture:
        return None
    return Platform(config.os, config.architecture, config.variant or "")
