"""What a start read of a layer, as a snapshotter and its mirror tell each other over HTTP."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from p2pdist.model.control import TRACE_UNIT_MAX, TRACE_UNITS_MAX

QUESTION: Final = "/v2/_p2pdist/trace"
"""`GET ?layer=<digest>`: what starts read of it, elsewhere too; `POST`, the same: what one did."""
BODY_BYTES_MAX: Final = 4096

_decoder: Final = msgspec.msgpack.Decoder(
    Annotated[
        list[Annotated[int, msgspec.Meta(ge=0, le=TRACE_UNIT_MAX)]],
        msgspec.Meta(max_length=TRACE_UNITS_MAX),
    ]
)


def encode_trace(units: list[int]) -> bytes:
    """`units`: MiB of the layer's archive, in the order in which they are first read."""
    return msgspec.msgpack.encode(units)


def decode_trace(body: bytes) -> list[int]:
    """Raises ValueError."""
    if len(body) > BODY_BYTES_MAX:
        raise ValueError(f"a trace of {len(body)} bytes")
    try:
        units: list[int] = _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ValueError(f"no trace: {error}") from None
    return units
