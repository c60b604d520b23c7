"""Keeps a proxy's links over a restart, so that it need not ask upstream again who has what."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Final

import aiofiles
import msgspec
import zstandard

from p2pdist.model.geometry import BLOB_SIZE_MAX_BYTES
from p2pdist.model.ids import parse_digest
from p2pdist.oci.names import ImageName
from p2pdist.oci.reference import canonical_upstream, valid_repository
from p2pdist.process import logs
from p2pdist.process.files import no_follow, write_whole
from p2pdist.swarm.core.links import LinkRecord, Links

log = logging.getLogger(__name__)

FILE_NAME: Final = "links.v2.zst"
INTERVAL_S: Final = 30.0
# 200,000 links with 16 names each; nothing larger is read.
FILE_BYTES_MAX: Final = 256 << 20
# Links that are listed in one turn of the event loop: 0.2 ms; 200,000 at once took 0.8 s.
SLICE: Final = 250


_Size = Annotated[int, msgspec.Meta(ge=0, le=BLOB_SIZE_MAX_BYTES)]


class _Line(msgspec.Struct, frozen=True, array_like=True):
    digest: str
    media_type: str
    is_manifest: bool
    names: list[tuple[str, str, _Size | None]]
    """Upstream, repository and the size that it claims."""
    delivered: list[str] = []
    """Upstreams; absent in the files of earlier versions."""
    made_of: tuple[str, _Size] | None = None
    """So is this: the layer that it is the index of, and its own size."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_Line])


async def keep_writing(links: Links, path: Path) -> None:
    """Save every `INTERVAL_S`, for ever; a disk that refuses costs the snapshot alone."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        await save(links, path)


async def save(links: Links, path: Path) -> None:
    lines = []
    for record in links.records():
        names = [(name.upstream, name.repository, size) for name, size in record.names]
        lines.append(
            _Line(
                record.digest,
                record.media_type,
                record.is_manifest,
                names,
                list(record.delivered),
                record.made_of,
            )
        )
        if len(lines) % SLICE == 0:
            await asyncio.sleep(0)
    data = await asyncio.to_thread(_pack, lines)
    try:
        await asyncio.to_thread(write_whole, path, data)
    except OSError as error:
        logs.event(log, logging.WARNING, "links.not_saved", error=str(error))


async def load(links: Links, path: Path) -> int:
    """Take in a snapshot and return how many links it held; one that is damaged, or that the disk
    does not give, counts for nothing: registries are asked again."""
    try:
        async with aiofiles.open(path, "rb", opener=no_follow) as file:
            data = await file.read(FILE_BYTES_MAX + 1)
        records = await asyncio.to_thread(_unpack, data)
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, msgspec.DecodeError, zstandard.ZstdError) as error:
        logs.event(log, logging.WARNING, "links.damaged", error=str(error))
        return 0
    links.restore(records)
    return len(records)


def _pack(lines: list[_Line]) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(_encoder.encode(lines))


def _unpack(data: bytes) -> list[LinkRecord]:
    """Raise ValueError, DecodeError or ZstdError for anything that we did not write."""
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"a file of more than {FILE_BYTES_MAX} bytes")
    size = zstandard.frame_content_size(data)
    if not 0 <= size <= FILE_BYTES_MAX:
        raise ValueError(f"a snapshot of {size} bytes")
    lines = _decoder.decode(zstandard.ZstdDecompressor().decompress(data, max_output_size=size))
    return [_record(line) for line in lines]


def _record(line: _Line) -> LinkRecord:
    names: list[tuple[ImageName, int | None]] = []
    for upstream, repository, size in line.names:
        if canonical_upstream(upstream) != upstream or not valid_repository(repository):
            raise ValueError("a name that is none")
        names.append((ImageName(upstream, repository), size))
    digest = parse_digest(line.digest)
    if any(canonical_upstream(upstream) != upstream for upstream in line.delivered):
        raise ValueError("an upstream that is none")
    made_of = None
    if line.made_of is not None:
        layer, size = line.made_of
        made_of = parse_digest(layer), size
    return LinkRecord(
        digest, line.media_type, line.is_manifest, tuple(names), tuple(line.delivered), made_of
    )
