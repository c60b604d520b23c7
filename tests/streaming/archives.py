"""Archives of layers as tools write them, and as nobody should."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import zlib
from collections.abc import Mapping
from copy import copy
from typing import Final

import zstandard

from p2pdist.model.ids import Digest, digest_of
from p2pdist.streaming.building import IndexBuilder
from p2pdist.streaming.core.index import LayerIndex
from p2pdist.streaming.core.tar import Member, TarReader
from p2pdist.streaming.core.tree import LayerTree, Node

Entry = tuple[tarfile.TarInfo, bytes]


def archive(*members: Entry, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def file(
    name: str, content: bytes = b"", *, mode: int = 0o644, pax: Mapping[str, str] | None = None
) -> Entry:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), mode, 1_700_000_000
    info.pax_headers = dict(pax or {})
    return info, content


def directory(name: str, mode: int = 0o755) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info, b""


def symlink(name: str, target: str) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
    return info, b""


def hardlink(name: str, target: str) -> Entry:
    """Says of the file what a `TarInfo` says by itself: mode 0644, root's, of 1970."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.LNKTYPE, target
    return info, b""


def name_of(member: Entry, name: str) -> Entry:
    """One more name of a file, which says the same of it, as tools write it."""
    info = copy(member[0])
    info.type, info.linkname, info.name, info.size = tarfile.LNKTYPE, info.name, name, 0
    return info, b""


def device(name: str, major: int, minor: int) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.devmajor, info.devminor, info.mode = tarfile.CHRTYPE, major, minor, 0o600
    return info, b""


def members_of(data: bytes, *, piece_bytes: int = 1 << 20) -> list[Member]:
    """Raises UnfitLayer."""
    reader, found = TarReader(), []
    for start in range(0, len(data), piece_bytes):
        found += reader.feed(memoryview(data)[start : start + piece_bytes])
    reader.finish()
    return found


def index_of(blob: bytes, *, span_bytes: int = 1 << 20, piece_bytes: int = 1 << 18) -> LayerIndex:
    """Raises UnfitLayer."""
    builder = IndexBuilder(digest(blob), span_bytes=span_bytes)
    try:
        for start in range(0, len(blob), piece_bytes):
            builder.feed(blob[start : start + piece_bytes])
        return builder.finish()
    finally:
        builder.close()


def digest(body: bytes) -> Digest:
    return digest_of(body)


def text(nbytes: int, seed: int = 1) -> bytes:
    """What shrinks to about a third: words, some of them from far back."""
    rng = random.Random(seed)
    words = [
        bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(4000)
    ]
    out = bytearray()
    while len(out) < nbytes:
        out += b" ".join(rng.choices(words, k=200)) + b"\n"
    return bytes(out[:nbytes])


def gzipped(data: bytes, level: int = 6) -> bytes:
    return gzip.compress(data, level, mtime=0)


def gzipped_in_members(data: bytes, member_bytes: int) -> bytes:
    """As eStargz and `cat a.gz b.gz` make it."""
    pieces = [data[at : at + member_bytes] for at in range(0, len(data), member_bytes)]
    return b"".join(gzip.compress(piece, mtime=0) for piece in pieces)


def zstd_in_frames(data: bytes, frame_bytes: int) -> bytes:
    """As zstd:chunked and pzstd make it: between frames something that is to be skipped."""
    packer = zstandard.ZstdCompressor(level=3, write_checksum=True)
    out = b""
    for at in range(0, len(data), frame_bytes):
        out += packer.compress(data[at : at + frame_bytes]) + SKIPPED
    return out


SKIPPED: Final = struct.pack("<II", 0x184D2A50, 7) + b"for us "


def gzipped_and_flushed(data: bytes, piece_bytes: int) -> bytes:
    """As pigz makes it: blocks that end at bytes."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    out = b""
    for at in range(0, len(data), piece_bytes):
        out += packer.compress(data[at : at + piece_bytes]) + packer.flush(zlib.Z_SYNC_FLUSH)
    return out + packer.flush()


def tree_of(*members: Entry) -> LayerTree:
    return LayerTree(members_of(archive(*members)))


def at(tree: LayerTree, path: str) -> Node:
    node = tree.root
    for part in path.split("/"):
        node = node.children[part.encode()]
    return node
