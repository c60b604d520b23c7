"""Looks at a state directory that no daemon has open: what it claims must be true (I1, I3).

Reads the files with the store's own decoders but none of its recovery: what a daemon would repair
at its next start still counts as found.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import xxhash

from p2pdist.errors import PeerFault
from p2pdist.model.chunkmap import ChunkMap, chunk_hash, open_map
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.ids import parse_digest
from p2pdist.model.statements import Keyring
from p2pdist.store.bits import decode_bits
from p2pdist.store.records import decode_records

_FOOT_BYTES: Final = 8
_HEX: Final = r"[0-9a-f]{2}/[0-9a-f]{64}"
# All that a daemon may leave in its directory; anything else is an orphan.
_KEPT: Final = re.compile(
    rf"host_id|links\.v2\.zst|snapshot[^/]*|store/(?:format|lock|pins|revocations"
    rf"|statements/[0-9a-f]{{64}}|small/sha256/{_HEX}|blobs/sha256/{_HEX}/(?:data|map|bits))"
)


@dataclass
class Findings:
    """What lies in one daemon's state directory."""

    verified_chunks: int = 0
    """Chunks that are marked as verified, all of which were hashed here."""
    whole_blobs: list[str] = field(default_factory=list)
    """Digests of sealed blobs with all chunks, and of small blobs."""
    wrong: list[str] = field(default_factory=list)
    """Claims that do not hold."""
    orphans: list[str] = field(default_factory=list)
    """Files that belong to nothing."""


def inspect(state_dir: Path, proxy_keys: Sequence[bytes]) -> Findings:
    """Hash everything that the store under `state_dir` claims to have verified."""
    found = Findings()
    keyring = Keyring(list(proxy_keys))
    for path in (state_dir / "store" / "blobs").glob("*/*/*/map"):
        _inspect_blob(path.parent, keyring, found)
    for path in (state_dir / "store" / "small").glob("*/*/*"):
        _inspect_small(path, found)
    everything = (p for p in state_dir.rglob("*") if not p.is_dir())
    names = (str(p.relative_to(state_dir)) for p in everything)
    found.orphans = sorted(name for name in names if not _KEPT.fullmatch(name))
    return found


def _inspect_blob(path: Path, keyring: Keyring, found: Findings) -> None:
    try:
        chunk_map = open_map(keyring, decode_records((path / "map").read_bytes()))
    except PeerFault as error:
        found.wrong.append(f"{path.name[:12]}: {error}")
        return
    try:
        bits = decode_bits((path / "bits").read_bytes(), chunk_map.geometry.chunk_count)
    except (FileNotFoundError, ValueError):
        return  # no bits, or made and not yet written: nothing is claimed
    if chunk_map.digest.partition(":")[2] != path.name:
        found.wrong.append(f"{path.name[:12]}: map of {chunk_map.digest}")
        return
    claimed = bits.verified.bits & chunk_map.known.bits
    chunks = list(ChunkSet(chunk_map.geometry.chunk_count, claimed))
    found.verified_chunks += len(chunks)
    wrong = _wrong_chunks(path / "data", chunk_map, chunks)
    found.wrong += [f"{path.name[:12]}: chunk {chunk}" for chunk in wrong]
    if chunk_map.sealed and len(chunks) == chunk_map.geometry.chunk_count:
        found.whole_blobs.append(chunk_map.digest)
        if _sha256(path / "data") != path.name:
            found.wrong.append(f"{path.name[:12]}: digest of the whole")


def _wrong_chunks(data: Path, chunk_map: ChunkMap, chunks: Sequence[int]) -> list[int]:
    geometry, wrong = chunk_map.geometry, []
    with data.open("rb") as file:
        for chunk in chunks:
            file.seek(geometry.offset(chunk))
            if chunk_hash(file.read(geometry.length(chunk))) != chunk_map.hash_of(chunk):
                wrong.append(chunk)
    return wrong


def _inspect_small(path: Path, found: Findings) -> None:
    """A file under its final name is whole: length of the media type, media type, body, footer."""
    try:
        digest = parse_digest(f"{path.parent.parent.name}:{path.name}")
    except ValueError:
        return  # an orphan, not a claim
    raw = path.read_bytes()
    data, foot = raw[:-_FOOT_BYTES], raw[-_FOOT_BYTES:]
    body = data[1 + data[0] :] if data else b""
    if xxhash.xxh3_64_digest(data) != foot or hashlib.sha256(body).hexdigest() != path.name:
        found.wrong.append(f"small {path.name[:12]}")
    found.whole_blobs.append(digest)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
