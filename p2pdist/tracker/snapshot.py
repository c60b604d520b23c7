"""The tracker's snapshot: what hosts held of late, so that a restart does not begin with nothing.

Only a stopgap: after a restart every host announces anew, and one that does not come back within
the grace is forgotten. The file is one zstd stream of records, each a length (4 bytes) and a
msgpack record of one host; it is replaced as a whole, every 30 s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import aiofiles
import msgspec
import zstandard

from p2pdist.errors import PeerFault
from p2pdist.model.control import Delta
from p2pdist.model.ids import parse_host_id
from p2pdist.model.members import Member
from p2pdist.process import logs
from p2pdist.process.files import Replacement, no_follow
from p2pdist.tracker.admission import check_member
from p2pdist.tracker.core.state import HostRecord, TrackerCore

FILE_NAME: Final = "tracker.snapshot.v1.zst"
INTERVAL_S: Final = 30.0
# 30,000 hosts with 64 blobs each; beyond it nothing is written, and nothing larger is read.
SNAPSHOT_BYTES_MAX: Final = 256 << 20
# About 2 ms of the event loop for hosts with 20 blobs each.
HOSTS_PER_SLICE: Final = 64
_LENGTH_BYTES: Final = 4

log = logging.getLogger(__name__)


class _Record(msgspec.Struct, frozen=True, array_like=True):
    member: Member
    deltas: list[Delta]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Record)


async def keep_writing(core: TrackerCore, path: Path) -> None:
    """Save every `INTERVAL_S`, for ever; a disk that refuses costs the snapshot alone."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        await save(core, path)


async def save(core: TrackerCore, path: Path) -> bool:
    """Write a snapshot; return False, with a log line, where the disk refuses.

    Hosts are read slice by slice between other work: each record is true for its host, and hosts
    do not depend on each other.
    """
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    try:
        with await asyncio.to_thread(Replacement, path) as scratch:
            total_bytes = 0
            ids = core.host_ids()
            for start in range(0, len(ids), HOSTS_PER_SLICE):
                exported = (core.export(host) for host in ids[start : start + HOSTS_PER_SLICE])
                plain = b"".join(_frame(record) for record in exported if record is not None)
                total_bytes += len(plain)
                if total_bytes > SNAPSHOT_BYTES_MAX:
                    break
                packed = await asyncio.to_thread(compressor.compress, plain)
                await asyncio.to_thread(scratch.write, packed)
            await asyncio.to_thread(scratch.write, compressor.flush())
            await asyncio.to_thread(scratch.commit)
    except OSError as error:
        logs.event(log, logging.WARNING, "snapshot.failed", path=str(path), error=str(error))
        return False
    return True


async def load(core: TrackerCore, path: Path, now_s: float) -> int:
    """Restore what a snapshot holds; return the number of hosts, 0 without a usable file."""
    count = 0
    try:
        async with aiofiles.open(path, "rb", opener=no_follow) as file:
            packed = await file.read(SNAPSHOT_BYTES_MAX + 1)
        if len(packed) > SNAPSHOT_BYTES_MAX:
            raise ValueError("snapshot beyond its limit")
        plain = await asyncio.to_thread(_decompress, packed)
        for record in _records(plain):
            core.restore(record, now_s)
            count += 1
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, PeerFault, zstandard.ZstdError, msgspec.DecodeError) as error:
        logs.event(log, logging.WARNING, "snapshot.cut_short", path=str(path), error=str(error))
    logs.event(log, logging.INFO, "snapshot.loaded", hosts=count)
    return count


def _frame(record: HostRecord) -> bytes:
    body = _encoder.encode(_Record(record.member, record.deltas))
    return len(body).to_bytes(_LENGTH_BYTES) + body


def _decompress(packed: bytes) -> bytes:
    plain = bytearray()
    with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
        while part := reader.read(1 << 20):
            plain += part
            if len(plain) > SNAPSHOT_BYTES_MAX:
                raise ValueError("snapshot beyond its limit")
    return bytes(plain)


def _records(plain: bytes) -> Iterator[HostRecord]:
    at = 0
    while at < len(plain):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(plain[start - _LENGTH_BYTES : start])
        if at > len(plain):
            raise ValueError("snapshot that ends within a record")
        record = _decoder.decode(plain[start:at])
        parse_host_id(record.member.host_id)
        check_member(record.member)
        yield HostRecord(record.member, record.deltas)
