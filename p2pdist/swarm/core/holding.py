"""Which chunks of one blob lie here, how it is cut, and what may be delivered of it."""

from __future__ import annotations

from p2pdist.errors import PeerFault
from p2pdist.exchange.frames import Offer
from p2pdist.model.bits import count_of, without
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.geometry import Geometry, geometry_for
from p2pdist.swarm.core.delivery import deliverable_end


class Holding:
    """Pure. Cost per event: a few operations on integers of one bit a chunk."""

    def __init__(self, size_bytes: int) -> None:
        """`size_bytes`: as a manifest claims it."""
        self.geometry: Geometry = geometry_for(size_bytes)
        """As it was claimed, until a signed head says how it is."""
        self.map: ChunkMap | None = None
        """The one that is followed."""
        self.bits = 0
        """The chunks that lie here and that the map vouches for."""
        self.count = 0
        """How many these are."""

    @property
    def whole(self) -> bool:
        """All chunks are here and the map is sealed."""
        sealed = self.map is not None and self.map.sealed
        return sealed and self.count == self.geometry.chunk_count

    @property
    def proven_size_bytes(self) -> int | None:
        """How long the blob is, once a proxy's signature says so."""
        return self.geometry.size_bytes if self.map is not None else None

    def chunk_at(self, offset: int) -> int:
        """The chunk of a byte; a reader that was told another size may wait behind the end."""
        return min(self.geometry.chunk_at(offset), self.geometry.chunk_count - 1)

    def lacks(self, chunk: int) -> bool:
        """`chunk` is one of the blob, and does not lie here."""
        return chunk < self.geometry.chunk_count and not self.bits >> chunk & 1

    def deliverable_end(self, offset: int, *, to_end: bool) -> int:
        """The end of the bytes that may go out from `offset` on; `offset` itself if none may.

        `to_end`: the body is read to the end of the blob (see `delivery`).
        """
        if self.map is None:
            return offset
        verified = ChunkSet(self.geometry.chunk_count, self.bits)
        sealed = self.map.sealed
        return deliverable_end(self.geometry, verified, offset, sealed=sealed, to_end=to_end)

    def offered(self, offer: Offer) -> int:
        """The chunks that `offer` is about; none where it is about another map. Raises
        PeerFault."""
        if self.map is None or self.map.map_id != offer.map_id:
            return 0
        try:
            return ChunkSet.from_ranges(self.geometry.chunk_count, offer.ranges).bits
        except ValueError as error:
            raise PeerFault(str(error)) from None

    # --- changes --------------------------------------------------------------------------------

    def follow(self, chunk_map: ChunkMap) -> bool:
        """Begin anew under `chunk_map`, with nothing; return whether it is cut otherwise."""
        recut = self.geometry != chunk_map.geometry
        self.map, self.geometry = chunk_map, chunk_map.geometry
        self.bits = self.count = 0
        return recut

    def take(self, bits: int) -> int:
        """Chunks are on disk; return those that the map vouches for."""
        vouched = bits & self.map.known.bits if self.map is not None else 0
        fresh = without(vouched, self.bits)
        self.bits |= fresh
        self.count += count_of(fresh)
        return vouched

    def lose(self, bits: int) -> None:
        """These are not here any more."""
        self.bits = without(self.bits, bits)
        self.count = self.bits.bit_count()

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        everything = (1 << self.geometry.chunk_count) - 1
        known = self.map.known.bits if self.map is not None else 0
        assert not known & ~everything
        assert not self.bits & ~known, "it holds what no map vouches for"
        assert self.map is None or self.map.geometry == self.geometry
        assert self.count == self.bits.bit_count()
