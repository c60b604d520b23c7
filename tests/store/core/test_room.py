from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import StoreError
from p2pdist.model.ids import Digest
from p2pdist.store.core.room import SMALL_SHARE, Rank, Room, Tenant

PLENTY = 1 << 50


def room(max_bytes: int = 1000) -> Room:
    return Room(max_bytes, high_watermark=0.9, low_watermark=0.8)


def tenant(name: str, nbytes: int, *, used_at_s: float = 0.0, rank: Rank = Rank.BLOB) -> Tenant:
    return Tenant(Digest(name), nbytes, rank, used_at_s)


def names(tenants: list[Tenant]) -> list[str]:
    return [str(tenant.digest) for tenant in tenants]


def test_nobody_goes_below_the_high_watermark() -> None:
    assert room().plan(100, used=800, free=PLENTY, tenants=[tenant("a", 800)]) == []


def test_the_least_recently_used_go_until_the_low_watermark_is_reached() -> None:
    tenants = [tenant(n, 200, used_at_s=at) for n, at in (("c", 3), ("a", 1), ("d", 4), ("b", 2))]

    assert names(room().plan(150, used=800, free=PLENTY, tenants=tenants)) == ["a"]
    assert names(room().plan(300, used=800, free=PLENTY, tenants=tenants)) == ["a", "b"]


def test_a_full_disk_makes_them_go_below_any_watermark() -> None:
    tenants = [tenant("a", 100, used_at_s=1), tenant("b", 100, used_at_s=2)]

    assert names(room().plan(150, used=200, free=60, tenants=tenants)) == ["a"]


@pytest.mark.parametrize(
    ("nbytes", "used", "free"),
    [(1001, 500, PLENTY), (700, 700, PLENTY), (100, 500, 0)],
    ids=["larger than the store", "too much is in use", "the disk is full of other things"],
)
def test_nobody_goes_for_what_would_not_fit_all_the_same(nbytes: int, used: int, free: int) -> None:
    """One blob that could not fit used to evict everything first."""
    with pytest.raises(StoreError) as caught:
        room().plan(nbytes, used=used, free=free, tenants=[tenant("a", 50)])
    assert caught.value.full


def test_what_is_reserved_is_there_for_nobody_else() -> None:
    book = room()
    book.reserve(600)

    assert book.fits(400, used=0, free=PLENTY)
    assert not book.fits(401, used=0, free=PLENTY)
    assert not book.fits(300, used=0, free=800)
    book.release(600)
    assert book.fits(401, used=0, free=PLENTY)


def test_what_nothing_proves_goes_before_what_is_whole() -> None:
    tenants = [
        tenant("whole", 300, used_at_s=1),
        tenant("open", 200, used_at_s=9, rank=Rank.UNPROVEN),
        tenant("aside", 200, used_at_s=9, rank=Rank.ASIDE),
    ]

    assert names(room().plan(250, used=700, free=PLENTY, tenants=tenants)) == ["aside"]
    assert names(room().plan(550, used=700, free=PLENTY, tenants=tenants)) == [
        "aside",
        "open",
        "whole",
    ]


def test_small_ones_beyond_their_share_go_before_blobs() -> None:
    """They used to stay for ever, and in the end kept every blob out."""
    share = int(100_000 * SMALL_SHARE)
    small = [tenant(f"s{i}", share, used_at_s=i, rank=Rank.SMALL) for i in range(3)]
    blobs = [tenant("blob", 80_000)]
    used = 80_000 + 3 * share

    leaving = names(room(100_000).plan(9_000, used=used, free=PLENTY, tenants=[*small, *blobs]))

    assert leaving[:2] == ["s0", "s1"]
    assert "s2" not in leaving


def test_small_ones_within_their_share_go_only_where_blobs_are_not_enough() -> None:
    share = int(100_000 * SMALL_SHARE)
    tenants = [
        tenant("small", share, rank=Rank.SMALL),
        tenant("blob", 50_000, used_at_s=5),
    ]
    used = share + 50_000

    def leaving(nbytes: int) -> list[str]:
        return names(room(100_000).plan(nbytes, used=used, free=PLENTY, tenants=tenants))

    assert leaving(95_000) == ["blob"]
    assert leaving(100_000) == ["blob", "small"]


@given(
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(Rank), st.floats(0, 100)), max_size=12),
    st.integers(0, 1200),
    st.integers(0, 600),
    st.integers(0, 1500),
    st.integers(0, 300),
)
def test_a_plan_makes_the_room_and_takes_nothing_twice(
    held: list[tuple[int, Rank, float]], nbytes: int, in_use: int, free: int, reserved: int
) -> None:
    book = room()
    book.reserve(reserved)
    tenants = [
        tenant(str(i), size, rank=rank, used_at_s=at) for i, (size, rank, at) in enumerate(held)
    ]
    spare = sum(t.nbytes for t in tenants)
    used = in_use + spare
    possible = book.fits(nbytes, used=in_use, free=free + spare)
    try:
        leaving = book.plan(nbytes, used=used, free=free, tenants=tenants)
    except StoreError:
        assert not possible
        return
    left = sum(t.nbytes for t in leaving)
    assert possible
    assert len({t.digest for t in leaving}) == len(leaving)
    assert book.fits(nbytes, used=used - left, free=free + left)
    if book.ample(nbytes, used=used, free=free):
        assert leaving == []
