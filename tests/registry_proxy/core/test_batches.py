"""When the hashes of chunks are signed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.statements import BATCH_HASHES_MAX, CHUNK_HASH_BYTES
from p2pdist.registry_proxy.core.batches import BATCH_WAIT_S, Batch, HashBatches


def hash_of(chunk: int) -> bytes:
    return chunk.to_bytes(2, "big") * (CHUNK_HASH_BYTES // 2)


def test_the_first_hash_goes_out_at_once() -> None:
    batches = HashBatches()

    assert batches.add(0, hash_of(0), 1.0) == [Batch(0, hash_of(0))]
    assert batches.next_deadline_s() is None


def test_a_batch_closes_by_time_from_its_first_hash_on() -> None:
    batches = HashBatches()
    batches.add(1, hash_of(1), 1.0)
    batches.add(2, hash_of(2), 1.03)

    assert batches.next_deadline_s() == 1.0 + BATCH_WAIT_S
    assert batches.flush() == [Batch(1, hash_of(1) + hash_of(2))]
    assert batches.next_deadline_s() is None
    assert batches.flush() == []


def test_a_batch_closes_when_it_is_full() -> None:
    batches = HashBatches()
    for chunk in range(1, BATCH_HASHES_MAX):
        assert batches.add(chunk, hash_of(chunk), 1.0) == []

    (full,) = batches.add(BATCH_HASHES_MAX, hash_of(BATCH_HASHES_MAX), 1.0)
    assert (full.first, len(full.hashes)) == (1, BATCH_HASHES_MAX * CHUNK_HASH_BYTES)


def test_behind_a_gap_begins_another_batch() -> None:
    batches = HashBatches()
    batches.add(4, hash_of(4), 1.0)

    assert batches.add(9, hash_of(9), 1.02) == [Batch(4, hash_of(4))]
    assert batches.next_deadline_s() == 1.02 + BATCH_WAIT_S


def test_what_is_dropped_is_not_signed() -> None:
    batches = HashBatches()
    batches.add(4, hash_of(4), 1.0)
    batches.drop()

    assert batches.flush() == []
    assert batches.next_deadline_s() is None


@given(st.lists(st.tuples(st.integers(0, 200), st.sampled_from([0.0, 0.01, 0.06])), max_size=300))
def test_every_hash_is_signed_once_for_its_chunk_and_in_time(
    steps: list[tuple[int, float]],
) -> None:
    """Runs of chunks, as bodies bring them, each from anywhere on."""
    batches, now_s, chunk = HashBatches(), 0.0, 0
    added: list[tuple[int, bytes, float]] = []
    signed: list[tuple[int, bytes, float]] = []

    def take(closed: list[Batch]) -> None:
        batches.validate()
        for batch in closed:
            count = len(batch.hashes) // CHUNK_HASH_BYTES
            assert 0 < count <= BATCH_HASHES_MAX
            for i in range(count):
                piece = batch.hashes[i * CHUNK_HASH_BYTES : (i + 1) * CHUNK_HASH_BYTES]
                signed.append((batch.first + i, piece, now_s))

    for jump, seconds in steps:
        end_s = now_s + seconds
        due_s = batches.next_deadline_s()
        if due_s is not None and due_s <= end_s:
            now_s = due_s
            take(batches.flush())
        now_s = end_s
        chunk = jump if jump % 10 == 0 else chunk + 1
        added.append((chunk, hash_of(chunk), now_s))
        take(batches.add(chunk, hash_of(chunk), now_s))
    take(batches.flush())

    assert [entry[:2] for entry in signed] == [entry[:2] for entry in added]
    assert all(s[2] - a[2] <= BATCH_WAIT_S + 1e-9 for s, a in zip(signed, added, strict=True))
