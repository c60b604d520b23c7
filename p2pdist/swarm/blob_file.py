"""Where the chunks of one blob in motion lie: made, cut anew, held and let go."""

from __future__ import annotations

from collections.abc import Sequence

from p2pdist.model.chunkmap import ChunkMap
from p2pdist.store.ports import BlobStore, StoredBlob


class BlobFile:
    """Holds the stored blob, and those of other cuts that readers may still send from."""

    def __init__(self, store: BlobStore) -> None:
        self.blob: StoredBlob | None = None
        self._store = store
        self._released = False
        self._recut: list[StoredBlob] = []

    async def adopt(self, chunk_map: ChunkMap) -> StoredBlob | None:
        """Have the blob lie under `chunk_map`; chunks whose hash it confirms stay.

        None: it was released meanwhile. Raises StoreError, and PeerFault for a revoked map.
        """
        if self.blob is not None and self.blob.geometry != chunk_map.geometry:
            self._recut.append(self.blob)
            self.blob = None
        if self.blob is None:
            blob = await self._store.create(chunk_map)
            if self._released:
                return None
            blob.hold()
            self.blob = blob
        elif self.blob.chunk_map is not chunk_map:
            await self.blob.replace_map(chunk_map)
        return None if self._released else self.blob

    def start_with(self, blob: StoredBlob) -> None:
        """Take `blob`, which the caller holds for us."""
        self.blob = blob

    async def keep(self, records: Sequence[bytes]) -> None:
        """Write what the map took in; what an earlier run left may have its hashes. Raises
        StoreError."""
        if (blob := self.blob) is not None:
            await blob.add_records(*records)
            await blob.reclaim()

    def release(self) -> None:
        """The store may evict it; what is still on its way into it is held by nobody."""
        self._released = True
        for blob in (self.blob, *self._recut):
            if blob is not None:
                blob.release()
