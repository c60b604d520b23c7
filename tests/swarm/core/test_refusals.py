"""A host that refuses us is left alone for as long as it said, and longer each time."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.ids import HostId
from p2pdist.swarm.core.refusals import HOSTS_MAX, WAIT_MAX_S, RefusalBook

HOST = HostId("a" * 32)


@given(st.floats(1, 3600), st.integers(1, 40), st.integers())
def test_nobody_asks_before_the_time_or_much_later(retry_s: float, times: int, seed: int) -> None:
    book = RefusalBook(Random(seed))
    for _ in range(times):
        book.refused(HOST, retry_s, 100.0)

    assert book.waits(HOST, 100.0 + retry_s - 0.001)
    assert not book.waits(HOST, 100.001 + 1.5 * max(retry_s, WAIT_MAX_S))


def test_each_refusal_in_a_row_doubles_the_wait() -> None:
    book = RefusalBook(Random(1))
    waits = []
    for _ in range(3):
        book.refused(HOST, 30, 0.0)
        waits.append(book.until_s(HOST))

    assert 30 <= waits[0] <= 45
    assert 60 <= waits[1] <= 90
    assert 120 <= waits[2] <= 180


def test_a_link_starts_the_count_anew() -> None:
    book = RefusalBook(Random(1))
    book.refused(HOST, 30, 0.0)
    book.accepted(HOST)
    assert not book.waits(HOST, 0.0)

    book.refused(HOST, 30, 0.0)

    assert book.until_s(HOST) <= 45


def test_hosts_refused_at_once_do_not_come_back_at_once() -> None:
    until = set()
    for seed in range(100):
        book = RefusalBook(Random(seed))
        book.refused(HOST, 30, 0.0)
        until.add(int(book.until_s(HOST)))

    assert len(until) >= 12  # of the 15 seconds that there are


def test_a_full_book_forgets_the_oldest() -> None:
    book = RefusalBook(Random(1))
    hosts = [HostId(f"{n:032x}") for n in range(HOSTS_MAX + 1)]
    for host in hosts:
        book.refused(host, 30, 0.0)

    assert [book.waits(host, 0.0) for host in (hosts[0], hosts[1], hosts[-1])] == [
        False,
        True,
        True,
    ]
