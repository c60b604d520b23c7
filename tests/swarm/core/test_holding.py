"""What lies here of a blob counts once a map vouches for it."""

from __future__ import annotations

import pytest

from p2pdist.errors import PeerFault
from p2pdist.exchange.frames import Offer
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import MapId, digest_of
from p2pdist.model.statements import HashBatch, MapHead, Seal
from p2pdist.swarm.core.holding import Holding

DIGEST = digest_of(b"blob")
CHUNK = 256 * 1024
SIZE = 4 * CHUNK
MAP = MapId(b"m" * 16)


def map_of(known: int, size_bytes: int = SIZE, map_id: MapId = MAP) -> ChunkMap:
    """An open map with the hashes of the first `known` chunks."""
    chunk_size = geometry_for(size_bytes).chunk_size_bytes
    chunk_map = ChunkMap(MapHead(DIGEST, map_id, size_bytes, chunk_size, 0), b"head")
    if known:
        hashes = b"".join(bytes([i]) * 32 for i in range(known))
        chunk_map.apply(HashBatch(map_id, 0, hashes), b"hashes")
    return chunk_map


def is_whole(holding: Holding) -> bool:
    """It changes between two looks, which mypy does not expect of a property."""
    return holding.whole


def test_only_what_the_map_vouches_for_counts() -> None:
    holding = Holding(SIZE)
    assert holding.take(0b1111) == 0

    holding.follow(map_of(2))

    assert holding.take(0b0111) == 0b0011
    assert (holding.bits, holding.count) == (0b0011, 2)
    assert holding.take(0b0001) == 0b0001  # again: it is told again, and counts once
    assert holding.count == 2
    holding.validate()


def test_it_is_whole_when_all_is_here_and_the_map_is_sealed() -> None:
    holding, chunk_map = Holding(SIZE), map_of(4)
    holding.follow(chunk_map)
    holding.take(0b1111)
    assert not is_whole(holding)

    chunk_map.apply(Seal(DIGEST, MAP, 4, chunk_map.root()), b"seal")

    assert is_whole(holding)
    holding.lose(0b0100)
    assert (is_whole(holding), holding.lacks(2), holding.lacks(4)) == (False, True, False)
    holding.validate()


def test_a_size_is_a_claim_until_a_map_is_followed() -> None:
    holding = Holding(SIZE)
    sizes = [holding.proven_size_bytes]
    assert holding.deliverable_end(0, to_end=True) == 0

    assert not holding.follow(map_of(0))
    assert [*sizes, holding.proven_size_bytes] == [None, SIZE]
    assert holding.follow(map_of(0, size_bytes=2 * CHUNK))
    assert holding.chunk_at(3 * CHUNK) == 1  # a reader that was told the other size


def test_another_map_begins_with_nothing() -> None:
    holding = Holding(SIZE)
    holding.follow(map_of(4))
    holding.take(0b1111)

    holding.follow(map_of(4, map_id=MapId(b"o" * 16)))

    assert (holding.bits, holding.count) == (0, 0)


def test_an_offer_counts_under_the_map_that_is_followed() -> None:
    holding = Holding(SIZE)
    offer = Offer(DIGEST, MAP, ((1, 2),))
    assert holding.offered(offer) == 0

    holding.follow(map_of(0))

    assert holding.offered(offer) == 0b0110
    assert holding.offered(Offer(DIGEST, MapId(b"o" * 16), ((1, 2),))) == 0
    with pytest.raises(PeerFault):
        holding.offered(Offer(DIGEST, MAP, ((3, 2),)))
