from __future__ import annotations

from p2pdist.exchange.buffers import BufferPool


def test_a_buffer_that_was_given_back_is_taken_again() -> None:
    pool = BufferPool()
    buffer = pool.take(1000)
    pool.give(buffer)

    assert pool.take(1000) is buffer


def test_buffers_keep_to_their_length() -> None:
    pool = BufferPool()
    pool.give(bytearray(10))

    assert len(pool.take(20)) == 20


def test_a_full_pool_lets_buffers_go() -> None:
    pool = BufferPool(bytes_max=100)

    for _ in range(5):
        pool.give(bytearray(60))

    assert pool.free_bytes == 60
