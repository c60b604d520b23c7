from __future__ import annotations

import pytest

from p2pdist.errors import PeerFault
from p2pdist.model.chunkmap import (
    ChunkMap,
    MapState,
    chunk_hash,
    open_map,
)
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import MapId, digest_of
from p2pdist.model.statements import HashBatch, Keyring, MapHead, Revocation, Seal, Signer

SIGNER = Signer.generate()
SIZE = 5 * 256 * 1024 - 9
DIGEST, MAP_ID = digest_of(b"some blob"), MapId(b"m" * 16)
NOW_S = 1_700_000_000
HASHES = [chunk_hash(bytes([i])) for i in range(5)]


def head(**changes: object) -> MapHead:
    values: dict[str, object] = {
        "digest": DIGEST,
        "map_id": MAP_ID,
        "size_bytes": SIZE,
        "chunk_size_bytes": geometry_for(SIZE).chunk_size_bytes,
        "issued_at_s": NOW_S,
    }
    return MapHead(**{**values, **changes})  # type: ignore[arg-type]  # one of each


def fresh() -> ChunkMap:
    return ChunkMap(head(), SIGNER.sign(head()))


def batch(first: int, *hashes: bytes) -> HashBatch:
    return HashBatch(MAP_ID, first, b"".join(hashes))


def take(chunk_map: ChunkMap, statement: HashBatch | Seal | Revocation | MapHead) -> bool:
    return chunk_map.apply(statement, SIGNER.sign(statement))


def whole() -> ChunkMap:
    chunk_map = fresh()
    take(chunk_map, batch(0, *HASHES))
    return chunk_map


def seal_of(chunk_map: ChunkMap) -> Seal:
    return Seal(DIGEST, MAP_ID, 5, chunk_map.root())


def test_a_hash_is_known_after_its_batch() -> None:
    chunk_map = fresh()

    assert take(chunk_map, batch(1, HASHES[1], HASHES[2]))
    assert chunk_map.hash_of(0) is None
    assert chunk_map.hash_of(2) == HASHES[2]


def test_a_batch_said_twice_says_nothing_new() -> None:
    chunk_map = fresh()
    take(chunk_map, batch(0, HASHES[0]))

    assert not take(chunk_map, batch(0, HASHES[0]))
    assert len(chunk_map.records) == 2


def test_two_hashes_for_one_chunk_are_a_fault() -> None:
    chunk_map = fresh()
    take(chunk_map, batch(0, HASHES[0]))

    with pytest.raises(PeerFault, match="two hashes"):
        take(chunk_map, batch(0, HASHES[4], HASHES[1]))


def test_a_batch_beyond_the_blob_is_a_fault() -> None:
    with pytest.raises(PeerFault, match="outside"):
        take(fresh(), batch(4, HASHES[0], HASHES[1]))


def test_a_seal_that_fits_seals() -> None:
    chunk_map = whole()

    assert take(chunk_map, seal_of(chunk_map))
    assert chunk_map.sealed
    assert not take(chunk_map, seal_of(chunk_map))


@pytest.mark.parametrize(
    "seal",
    [
        Seal(DIGEST, MAP_ID, 5, b"r" * 32),
        Seal(DIGEST, MAP_ID, 4, b"r" * 32),
        Seal(digest_of(b"another"), MAP_ID, 5, b"r" * 32),
    ],
)
def test_a_seal_that_does_not_fit_is_a_fault(seal: Seal) -> None:
    with pytest.raises(PeerFault, match="seal"):
        take(whole(), seal)


def test_a_seal_may_come_before_the_hashes() -> None:
    seal, late = seal_of(whole()), fresh()

    assert not take(late, seal)
    assert late.due_seal() is None
    take(late, batch(0, *HASHES))

    assert late.due_seal() == (seal, SIGNER.sign(seal))
    assert late.due_seal() is None, "once"
    assert take(late, seal)
    assert late.sealed


def test_a_seal_that_came_early_and_does_not_fit_is_dropped() -> None:
    late = fresh()
    take(late, Seal(DIGEST, MAP_ID, 5, b"r" * 32))
    take(late, batch(0, *HASHES))

    assert late.due_seal() is None


def test_a_revocation_ends_a_map_sealed_or_not() -> None:
    chunk_map = whole()
    take(chunk_map, seal_of(chunk_map))

    assert take(chunk_map, Revocation(DIGEST, MAP_ID, NOW_S))
    assert chunk_map.state is MapState.REVOKED


def test_a_statement_about_another_map_is_a_fault() -> None:
    with pytest.raises(PeerFault, match="another chunk map"):
        take(fresh(), HashBatch(MapId(b"n" * 16), 0, HASHES[0]))


def test_a_second_head_with_other_words_is_a_fault() -> None:
    with pytest.raises(PeerFault, match="two heads"):
        take(fresh(), head(issued_at_s=NOW_S + 1))


@pytest.mark.parametrize("changes", [{"chunk_size_bytes": 1}, {"size_bytes": 1 << 60}])
def test_a_geometry_of_its_own_is_a_fault(changes: dict[str, object]) -> None:
    wrong = head(**changes)

    with pytest.raises(PeerFault):
        ChunkMap(wrong, SIGNER.sign(wrong))


def test_a_blob_of_one_chunk_has_no_map() -> None:
    small = head(size_bytes=100)

    with pytest.raises(PeerFault, match="geometry"):
        ChunkMap(small, SIGNER.sign(small))


def test_kept_records_give_the_map_again() -> None:
    chunk_map = whole()
    take(chunk_map, seal_of(chunk_map))

    again = open_map(Keyring([SIGNER.public_key_bytes]), chunk_map.records)

    assert again.sealed
    assert [again.hash_of(i) for i in range(5)] == HASHES


@pytest.mark.parametrize("records", [[], [b"garbage"]])
def test_records_that_are_none_are_a_fault(records: list[bytes]) -> None:
    with pytest.raises(PeerFault):
        open_map(Keyring([SIGNER.public_key_bytes]), records)


def test_records_must_begin_with_the_head() -> None:
    chunk_map = whole()

    with pytest.raises(PeerFault, match="does not start with its head"):
        open_map(Keyring([SIGNER.public_key_bytes]), chunk_map.records[1:])
