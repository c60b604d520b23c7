"""Chunk maps as their proxy makes them: hashes gathered into signed batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import MAP_ID_BYTES, Digest, MapId
from p2pdist.model.statements import (
    HashBatch,
    MapHead,
    Revocation,
    Seal,
    Signer,
)
from p2pdist.registry_proxy.core.batches import Batch, HashBatches


class MapSigner:
    """Signs the statements about one map and publishes each at once."""

    def __init__(
        self,
        signer: Signer,
        publish: Callable[[HashBatch | Seal, bytes], None],
        unix_s: Callable[[], float],
    ) -> None:
        self._signer = signer
        self._publish = publish
        self._unix_s = unix_s
        self._batches = HashBatches()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._map_id = MapId(b"")

    def new_map(
        self, digest: Digest, geometry: Geometry, random_bytes: Callable[[int], bytes]
    ) -> ChunkMap:
        """Open a map of a fresh generation; nothing is published before its first hashes."""
        map_id = MapId(random_bytes(MAP_ID_BYTES))
        issued_s = int(self._unix_s())
        head = MapHead(digest, map_id, geometry.size_bytes, geometry.chunk_size_bytes, issued_s)
        self._map_id = map_id
        return ChunkMap(head, self._signer.sign(head))

    def resume(self, chunk_map: ChunkMap) -> None:
        """Go on with a map of our own from before a restart."""
        self._map_id = chunk_map.map_id

    def add(self, chunk: int, chunk_hash: bytes) -> None:
        """Take the hash of `chunk`; when it is signed and published: see `HashBatches`."""
        self._sign(self._batches.add(chunk, chunk_hash, self._loop.time()))
        due_s = self._batches.next_deadline_s()
        if due_s is not None and self._timer is None:
            self._timer = self._loop.call_at(due_s, self.flush)

    def flush(self) -> None:
        """Publish what was gathered."""
        self._sign(self._batches.flush())

    def _sign(self, closed: list[Batch]) -> None:
        if closed or self._batches.next_deadline_s() is None:
            self._stop_timer()
        for batch in closed:
            statement = HashBatch(self._map_id, batch.first, batch.hashes)
            self._publish(statement, self._signer.sign(statement))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def seal(self, chunk_map: ChunkMap) -> None:
        """Say that the whole blob had its digest; all hashes must have been taken in."""
        self.flush()
        count, root = chunk_map.geometry.chunk_count, chunk_map.root()
        seal = Seal(chunk_map.digest, chunk_map.map_id, count, root)
        self._publish(seal, self._signer.sign(seal))

    def revocation(self, chunk_map: ChunkMap) -> bytes:
        """Return the signed record that takes the map back."""
        self.drop()
        now_s = int(self._unix_s())
        return self._signer.sign(Revocation(chunk_map.digest, chunk_map.map_id, now_s))

    def drop(self) -> None:
        """Forget what was gathered and not published."""
        self._stop_timer()
        self._batches.drop()
