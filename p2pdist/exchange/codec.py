"""Frames as bytes and back: bytes in, events out, no I/O.

A frame is `length (4) | type (1) | payload`, big-endian; `length` counts the payload. Each type has
its own largest payload, checked from the header before anything is buffered.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, assert_never

from p2pdist.errors import PeerFault
from p2pdist.exchange.frames import (
    MEDIA_TYPE_BYTES_MAX,
    OFFER_RANGES_MAX,
    RUN_CHUNKS_MAX,
    SLICE_BYTES_MAX,
    SMALL_BYTES_MAX,
    Cancel,
    Data,
    Frame,
    GetSmall,
    GetStatement,
    Interest,
    LinkUse,
    MapRecord,
    Offer,
    Others,
    Ping,
    Pong,
    Refuse,
    RefuseReason,
    Request,
    Retract,
    Small,
    StatementIs,
    Ticket,
    Uninterest,
    WhoElse,
    Working,
)
from p2pdist.model.ids import (
    MAP_ID_BYTES,
    MapId,
    RequestId,
    TagKey,
    digest_from_wire,
    digest_to_wire,
)
from p2pdist.model.member_wire import MEMBERS_BYTES_MAX, members_from_wire, members_to_wire
from p2pdist.model.statements import RECORD_BYTES_MAX

HEADER: Final = struct.Struct(">IB")
_DATA: Final = struct.Struct(">III")
_REQUEST: Final = struct.Struct(f">I{MAP_ID_BYTES}sIHB")
_ID: Final = struct.Struct(">I")
_REFUSE: Final = struct.Struct(">IB")
_SMALL: Final = struct.Struct(">II")
_OFFER: Final = struct.Struct(f">{MAP_ID_BYTES}sB")
_RANGE: Final = struct.Struct(">II")
_STATEMENT_KEY: Final = struct.Struct(">I32s")
_PING: Final = struct.Struct(">Q")
_DIGEST_MAX: Final = 65
_BULK: Final = 1
_HUNGRY: Final = 2
_DEMAND: Final = 4
_DATA_TYPE: Final = 9
BUFFER_BYTES_MAX: Final = SLICE_BYTES_MAX + 64


def data_header(request_id: int, chunk: int, offset: int, length: int) -> bytes:
    """The bytes that go before `length` bytes of payload (1 to `SLICE_BYTES_MAX`)."""
    assert 0 < length <= SLICE_BYTES_MAX
    return HEADER.pack(_DATA.size + length, _DATA_TYPE) + _DATA.pack(request_id, chunk, offset)


def encode(frame: Frame) -> bytes:
    kind, payload = _encode(frame)
    return HEADER.pack(len(payload), kind) + payload


def _encode(frame: Frame) -> tuple[int, bytes]:  # one line a type
    match frame:
        case Interest(digest, bulk, hungry, demand):
            flags = _BULK * bulk | _HUNGRY * hungry | _DEMAND * demand
            return 1, bytes([flags]) + digest_to_wire(digest)
        case Uninterest(digest):
            return 2, digest_to_wire(digest)
        case MapRecord(record):
            return 3, record
        case Offer(digest, map_id, ranges):
            name = digest_to_wire(digest)
            head = _OFFER.pack(map_id, len(name)) + name
            return 4, head + b"".join(_RANGE.pack(*pair) for pair in ranges)
        case Retract(digest):
            return 5, digest_to_wire(digest)
        case Request(request_id, digest, map_id, first, count, bulk):
            head = _REQUEST.pack(request_id, map_id, first, count, bulk)
            return 6, head + digest_to_wire(digest)
        case Cancel(request_id):
            return 7, _ID.pack(request_id)
        case Refuse(request_id, reason):
            return 8, _REFUSE.pack(request_id, reason)
        case Data(request_id, chunk, offset, payload):
            return _DATA_TYPE, _DATA.pack(request_id, chunk, offset) + payload
        case GetSmall(request_id, digest):
            return 10, _ID.pack(request_id) + digest_to_wire(digest)
        case Small(request_id, size, media_type):
            return 11, _SMALL.pack(request_id, size) + media_type.encode("ascii")
        case GetStatement(request_id, key):
            return 12, _STATEMENT_KEY.pack(request_id, key)
        case StatementIs(request_id, record):
            return 13, _ID.pack(request_id) + record
        case Ping(nonce):
            return 14, _PING.pack(nonce)
        case Pong(nonce):
            return 15, _PING.pack(nonce)
        case Working(digest):
            return 16, digest_to_wire(digest)
        case LinkUse(needed):
            return 17, bytes([needed])
        case WhoElse(digest):
            return 18, digest_to_wire(digest)
        case Others(digest, members):
            name = digest_to_wire(digest)
            return 19, bytes([len(name)]) + name + members_to_wire(members)
        case Ticket(record):
            return 20, record
        case _:
            assert_never(frame)


def _offer(data: bytes) -> Offer:
    map_id, name_length = _OFFER.unpack_from(data)
    name = data[_OFFER.size : _OFFER.size + name_length]
    ranges = tuple(_RANGE.iter_unpack(data[_OFFER.size + name_length :]))
    if len(ranges) > OFFER_RANGES_MAX:
        raise ValueError("too many ranges")
    return Offer(digest_from_wire(name), MapId(map_id), ranges)


def _request(data: bytes) -> Request:
    request_id, map_id, first, count, flag = _REQUEST.unpack_from(data)
    if not 0 < count <= RUN_CHUNKS_MAX:
        raise ValueError(f"run of {count} chunks")
    digest = digest_from_wire(data[_REQUEST.size :])
    return Request(RequestId(request_id), digest, MapId(map_id), first, count, _flag(flag))


def _interest(data: bytes) -> Interest:
    flags = data[0]
    if flags > _BULK | _HUNGRY | _DEMAND:
        raise ValueError(f"flags {flags}")
    bulk, hungry, demand = (bool(flags & flag) for flag in (_BULK, _HUNGRY, _DEMAND))
    return Interest(digest_from_wire(data[1:]), bulk, hungry, demand)


def _flag(byte: int) -> bool:
    if byte > 1:
        raise ValueError(f"flag {byte}")
    return bool(byte)


def _small(data: bytes) -> Small:
    request_id, size = _SMALL.unpack_from(data)
    if size > SMALL_BYTES_MAX:
        raise ValueError(f"small blob of {size} bytes")
    media_type = data[_SMALL.size :].decode("ascii")
    if not media_type.isprintable():
        raise ValueError("unprintable media type")
    return Small(RequestId(request_id), size, media_type)


def _refuse(data: bytes) -> Refuse:
    request_id, reason = _REFUSE.unpack(data)
    return Refuse(RequestId(request_id), RefuseReason(reason))


def _get_small(data: bytes) -> GetSmall:
    (request_id,) = _ID.unpack_from(data)
    return GetSmall(RequestId(request_id), digest_from_wire(data[_ID.size :]))


def _get_statement(data: bytes) -> GetStatement:
    request_id, key = _STATEMENT_KEY.unpack(data)
    return GetStatement(RequestId(request_id), TagKey(key))


def _statement(data: bytes) -> StatementIs:
    (request_id,) = _ID.unpack_from(data)
    return StatementIs(RequestId(request_id), data[_ID.size :])


def _others(data: bytes) -> Others:
    end = 1 + data[0]
    return Others(digest_from_wire(data[1:end]), members_from_wire(data[end:]))


# type -> (largest payload, decoder)
_DECODERS: Final[dict[int, tuple[int, Callable[[bytes], Frame]]]] = {
    1: (1 + _DIGEST_MAX, _interest),
    2: (_DIGEST_MAX, lambda d: Uninterest(digest_from_wire(d))),
    3: (RECORD_BYTES_MAX, MapRecord),
    4: (_OFFER.size + _DIGEST_MAX + _RANGE.size * OFFER_RANGES_MAX, _offer),
    5: (_DIGEST_MAX, lambda d: Retract(digest_from_wire(d))),
    6: (_REQUEST.size + _DIGEST_MAX, _request),
    7: (_ID.size, lambda d: Cancel(RequestId(_ID.unpack(d)[0]))),
    8: (_REFUSE.size, _refuse),
    10: (_ID.size + _DIGEST_MAX, _get_small),
    11: (_SMALL.size + MEDIA_TYPE_BYTES_MAX, _small),
    12: (_STATEMENT_KEY.size, _get_statement),
    13: (_ID.size + RECORD_BYTES_MAX, _statement),
    14: (_PING.size, lambda d: Ping(_PING.unpack(d)[0])),
    15: (_PING.size, lambda d: Pong(_PING.unpack(d)[0])),
    16: (_DIGEST_MAX, lambda d: Working(digest_from_wire(d))),
    17: (1, lambda d: LinkUse(_flag(d[0]))),
    18: (_DIGEST_MAX, lambda d: WhoElse(digest_from_wire(d))),
    19: (1 + _DIGEST_MAX + MEMBERS_BYTES_MAX, _others),
    20: (RECORD_BYTES_MAX, Ticket),
}


def _gathered(length: int, kind: int) -> int:
    """Return how many bytes behind a header belong together; raise PeerFault for a wrong header."""
    if kind == _DATA_TYPE:
        if not _DATA.size < length <= _DATA.size + SLICE_BYTES_MAX:
            raise PeerFault(f"data frame of {length} bytes")
        return _DATA.size
    if kind not in _DECODERS:
        raise PeerFault(f"frame of the unknown type {kind}")
    if not 0 < length <= _DECODERS[kind][0]:
        raise PeerFault(f"frame of type {kind} with {length} bytes")
    return length


class Decoder:
    """Turns any cutting of a byte stream into the same frames; dead after the first fault.

    Payload of `Data` is surfaced as it comes, without being gathered; everything else is gathered
    up to the largest payload of its type, so that at most `BUFFER_BYTES_MAX` bytes are kept.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._data: tuple[RequestId, int, int] | None = None  # request, chunk, next offset
        self._data_left = 0
        self._dead = False

    @property
    def buffered_bytes(self) -> int:
        return len(self._buffer)

    def feed(self, data: memoryview | bytes) -> list[Frame]:
        """Return the frames that `data` completes; raise PeerFault for a broken stream.

        `Data` payloads are views of `data`: use them before the next call.
        """
        if self._dead:
            raise PeerFault("the stream broke before")
        try:
            return self._feed(memoryview(data))
        except PeerFault:
            self._dead = True
            raise
        except (ValueError, struct.error) as error:
            self._dead = True
            raise PeerFault(f"malformed frame: {error}") from None

    def _feed(self, view: memoryview) -> list[Frame]:
        frames: list[Frame] = []
        while view:
            if self._data is not None:
                view = self._take_payload(self._data, view, frames)
                continue
            if not self._buffer and (used := self._take_whole(view, frames)):
                view = view[used:]
                continue
            need = self._need()
            part = view[: need - len(self._buffer)]
            self._buffer += part
            view = view[len(part) :]
            if len(self._buffer) == HEADER.size:
                self._need()  # a header that is wrong is refused before its payload comes
            elif len(self._buffer) == need:
                length, kind = HEADER.unpack_from(self._buffer)
                payload = bytes(self._buffer[HEADER.size :])
                self._buffer.clear()
                self._finish(length, kind, payload, frames)
        return frames

    def _take_whole(self, view: memoryview, frames: list[Frame]) -> int:
        """Take a frame that is all there, as most are, without gathering it; return its length, or
        0 where some of it is still to come."""
        if len(view) < HEADER.size:
            return 0
        length, kind = HEADER.unpack_from(view)
        need = HEADER.size + _gathered(length, kind)
        if len(view) < need:
            return 0
        self._finish(length, kind, bytes(view[HEADER.size : need]), frames)
        return need

    def _take_payload(
        self, at: tuple[RequestId, int, int], view: memoryview, frames: list[Frame]
    ) -> memoryview:
        request_id, chunk, offset = at
        part = view[: self._data_left]
        frames.append(Data(request_id, chunk, offset, part))
        self._data_left -= len(part)
        self._data = (request_id, chunk, offset + len(part)) if self._data_left else None
        return view[len(part) :]

    def _need(self) -> int:
        """How many bytes the buffer must hold for the next step."""
        if len(self._buffer) < HEADER.size:
            return HEADER.size
        return HEADER.size + _gathered(*HEADER.unpack_from(self._buffer))

    def _finish(self, length: int, kind: int, payload: bytes, frames: list[Frame]) -> None:
        if kind == _DATA_TYPE:
            request_id, chunk, offset = _DATA.unpack(payload)
            self._data = (RequestId(request_id), chunk, offset)
            self._data_left = length - _DATA.size
        else:
            frames.append(_DECODERS[kind][1](payload))
