from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.bucket import TokenBucket


def send_all(bucket: TokenBucket, pieces: list[int]) -> float:
    """Return when the last of `pieces` may go, each as soon as it is allowed."""
    now_s = 0.0
    for piece in pieces:
        while wait_s := bucket.take(piece, now_s):
            now_s += wait_s
    return now_s


def test_a_burst_passes_at_once() -> None:
    bucket = TokenBucket(1000, 500, 0.0)

    assert send_all(bucket, [100] * 5) == 0.0
    assert bucket.take(1, 0.0) > 0


def test_what_was_not_used_does_not_add_up() -> None:
    bucket = TokenBucket(1000, 500, 0.0)

    assert bucket.take(500, 1000.0) == 0.0
    assert bucket.take(1, 1000.0) > 0


def test_a_piece_larger_than_the_burst_gets_through() -> None:
    bucket = TokenBucket(1000, 10, 0.0)

    assert bucket.take(5000, 0.0) == 0.0
    assert 4.9 < bucket.take(1, 0.0) < 5.1


@given(st.lists(st.integers(1, 65536), min_size=50, max_size=200))
def test_the_mean_holds_for_any_pieces(pieces: list[int]) -> None:
    rate, burst = 1_000_000.0, 65536.0

    took_s = send_all(TokenBucket(rate, burst, 0.0), pieces)

    granted_before_last = sum(pieces[:-1])
    assert took_s >= (granted_before_last - burst) / rate - 1e-6
    assert took_s <= granted_before_last / rate + len(pieces) * 1.1e-4
