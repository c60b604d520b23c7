"""Blobs of a simulation: maps that nobody signed, and which statement a record stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.geometry import Geometry, geometry_for
from p2pdist.model.ids import MAP_ID_BYTES, Digest, MapId, digest_of
from p2pdist.model.statements import BATCH_HASHES_MAX, HashBatch, MapHead, Seal, Statement

HASH_BYTES: Final = 32
SIGNATURE_BYTES: Final = 74
"""What an envelope adds to a statement."""


@dataclass(frozen=True)
class SimBlob:
    """One blob, and the records of its map as its proxy would sign them."""

    digest: Digest
    geometry: Geometry
    head: MapHead
    batches: tuple[HashBatch, ...]
    seal: Seal


class Content:
    """All blobs; a record stands for its statement, as a signature that was checked does."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, SimBlob] = {}
        self._generations = 0
        self._statements: dict[bytes, Statement] = {}
        self._records: dict[tuple[MapId, int, int], bytes] = {}

    def add(self, name: str, size_bytes: int, chunks_per_record: int = BATCH_HASHES_MAX) -> SimBlob:
        """Make a blob; its bytes are nobody's business. `chunks_per_record`: of its map."""
        digest, geometry = digest_of(name.encode()), geometry_for(size_bytes)
        map_id = MapId(digest.encode()[-16:])
        head = MapHead(digest, map_id, size_bytes, geometry.chunk_size_bytes, 0)
        batches = []
        for first in range(0, geometry.chunk_count, chunks_per_record):
            count = min(chunks_per_record, geometry.chunk_count - first)
            hashes = b"".join(chunk_hash(i) for i in range(first, first + count))
            batches.append(HashBatch(map_id, first, hashes))
        whole = ChunkMap(head, b"")
        for batch in batches:
            whole.apply(batch, b"")
        seal = Seal(digest, map_id, geometry.chunk_count, whole.root())
        blob = self.blobs[digest] = SimBlob(digest, geometry, head, tuple(batches), seal)
        return blob

    def open_map(self, digest: Digest) -> ChunkMap:
        """A map of a fresh generation, as each reading of a registry opens one: proxies that do not
        hear each other make rivals."""
        self._generations += 1
        map_id = MapId(self._generations.to_bytes(MAP_ID_BYTES, "big"))
        geometry = self.blobs[digest].geometry
        head = MapHead(digest, map_id, geometry.size_bytes, geometry.chunk_size_bytes, 0)
        return ChunkMap(head, self.record(head))

    def record(self, statement: MapHead | HashBatch | Seal) -> bytes:
        """Return the record of a statement: as long as a signed one, and known to all."""
        hashes = statement.hashes if isinstance(statement, HashBatch) else b""
        key = statement.map_id, _slot(statement), len(hashes)
        if (record := self._records.get(key)) is None:
            number = len(self._statements).to_bytes(8, "big")
            record = self._records[key] = number.ljust(SIGNATURE_BYTES + len(hashes), b"\0")
            self._statements[record] = statement
        return record

    def open(self, record: bytes) -> Statement:
        """Raises KeyError for what no proxy said."""
        return self._statements[record]

    def whole_map(self, blob: SimBlob) -> ChunkMap:
        """A sealed map of its own, as whoever has the blob has it."""
        chunk_map = ChunkMap(blob.head, self.record(blob.head))
        for batch in blob.batches:
            chunk_map.apply(batch, self.record(batch))
        chunk_map.apply(blob.seal, self.record(blob.seal))
        return chunk_map


def chunk_hash(chunk: int) -> bytes:
    """What stands for the hash of a chunk, whichever blob it is of."""
    return chunk.to_bytes(HASH_BYTES, "big")


def _slot(statement: MapHead | HashBatch | Seal) -> int:
    if isinstance(statement, MapHead):
        return -2
    return -1 if isinstance(statement, Seal) else statement.first
