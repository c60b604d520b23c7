"""The map that one blob is fetched and served under, and the file that lies behind it."""

from __future__ import annotations

from typing import Protocol

from p2pdist.model.chunkmap import ChunkMap, MapState
from p2pdist.model.geometry import Geometry, geometry_for
from p2pdist.model.ids import MapId
from p2pdist.model.statements import HashBatch, MapHead, Revocation, Seal
from p2pdist.store.blob import Blob
from p2pdist.store.store import Store
from p2pdist.swarm.core.maps import MapChoice

MapStatement = MapHead | HashBatch | Seal | Revocation


class MapListener(Protocol):
    """Hears what becomes of the map, in order."""

    def map_followed(self, blob: Blob) -> None:
        """Another map, or the first, and the chunks of its cut that lie here."""
        ...

    def map_grew(self, record: bytes, bits: int) -> None:
        """It vouches for the chunks of `bits` now."""
        ...

    def map_sealed(self, record: bytes) -> None: ...

    def map_revoked(self, record: bytes) -> None: ...


class BlobMap:
    """Carries out a `MapChoice` on the store: makes the blob, replaces its map, cuts it anew."""

    def __init__(
        self, store: Store, size_bytes: int, choice: MapChoice, listener: MapListener
    ) -> None:
        self.geometry: Geometry = geometry_for(size_bytes)
        """As a manifest claims it, until a signed head says how it is."""
        self.blob: Blob | None = None
        self.map: ChunkMap | None = None
        self._store = store
        self._listener = listener
        self._choice = choice
        self._released = False
        self._recut: list[Blob] = []  # of other sizes, which readers may still send from

    @property
    def complete(self) -> bool:
        return self.blob is not None and self.blob.complete

    def follows(self, map_id: MapId) -> bool:
        return self.map is not None and self.map.map_id == map_id

    # --- statements -----------------------------------------------------------------------------

    async def take(self, statement: MapStatement, record: bytes) -> None:
        """Take in what a proxy signed; of other maps only the heads and revocations count."""
        match statement:
            case MapHead():
                await self._take_head(statement, record)
            case Revocation(map_id=map_id):
                self._choice.revoked(map_id)
                if self.map is not None and self.follows(map_id):
                    self.map.state = MapState.REVOKED
                    self._listener.map_revoked(record)
            case HashBatch() | Seal():
                if self.map is not None and self.follows(statement.map_id):
                    await self._apply(self.map, statement, record)

    async def _take_head(self, head: MapHead, record: bytes) -> None:
        chosen = self._choice.heard(
            head,
            record,
            followed=self.map,
            complete=self.complete,
            revoked=self._store.revoked(head.map_id),
        )
        if chosen is not None:
            await self.adopt(chosen)

    async def _apply(self, chunk_map: ChunkMap, statement: HashBatch | Seal, record: bytes) -> None:
        if not chunk_map.apply(statement, record):
            return
        assert self.blob is not None
        await self.blob.add_record(record)
        await self.blob.reclaim()  # what an earlier run left may have these hashes
        if self.map is not chunk_map:
            return  # while the disk was waited for another one took its place
        if isinstance(statement, Seal):
            self._listener.map_sealed(record)
            return
        self._listener.map_grew(record, ((1 << statement.count) - 1) << statement.first)
        if (due := chunk_map.due_seal()) is not None:  # it came before the hashes it seals
            await self._apply(chunk_map, *due)

    # --- the blob -------------------------------------------------------------------------------

    async def adopt(self, chunk_map: ChunkMap) -> None:
        """Work under `chunk_map` from now on; chunks whose hash it confirms stay."""
        if self.blob is not None and self.blob.geometry != chunk_map.geometry:
            self._recut.append(self.blob)
            self.blob = None
        if self.blob is None:
            blob = await self._store.create(chunk_map)
            if self._released:
                return
            blob.hold()
            self.blob = blob
        elif self.blob.chunk_map is not chunk_map:
            await self.blob.replace_map(chunk_map)
            if self._released:
                return
        self.start_with(self.blob)

    def start_with(self, blob: Blob) -> None:
        """Serve and complete `blob`, which the caller holds for us."""
        self.blob, self.map = blob, blob.chunk_map
        self._choice.settled()
        self.geometry = blob.geometry
        self._listener.map_followed(blob)

    def release(self) -> None:
        """The store may evict it; what is still on its way into it is held by nobody."""
        self._released = True
        for blob in (self.blob, *self._recut):
            if blob is not None:
                blob.release()
