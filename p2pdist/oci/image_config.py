"""The settings of an image, as its config blob holds them: for what platform it was built."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from p2pdist.oci.manifest import Platform

# Real ones are below 100 kB; artifacts put anything there.
CONFIG_BYTES_MAX: Final = 4 << 20
_Text = Annotated[str, msgspec.Meta(max_length=64)]


class _ConfigJson(msgspec.Struct, frozen=True):
    os: _Text
    architecture: _Text
    variant: _Text | None = None


_DECODER: Final = msgspec.json.Decoder(_ConfigJson)


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
