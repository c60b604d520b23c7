from __future__ import annotations

from p2pdist.model.ids import HostId
from p2pdist.peer.core.trust import BAN_S, HOSTS_MAX, STRIKES_MAX, TrustBook

LIAR = HostId("a" * 32)


def test_the_third_wrong_chunk_bans() -> None:
    book = TrustBook()

    outcomes = [book.strike(LIAR, 0.0) for _ in range(STRIKES_MAX)]

    assert outcomes == [False, False, True]
    assert book.banned(LIAR, 1.0)


def test_a_ban_expires() -> None:
    book = TrustBook()
    book.strike(LIAR, 0.0, STRIKES_MAX)

    assert not book.banned(LIAR, BAN_S)


def test_the_book_stays_bounded() -> None:
    book = TrustBook()
    for i in range(2 * HOSTS_MAX):
        book.strike(HostId(f"{i:032x}"), 0.0, STRIKES_MAX)

    assert book.banned(HostId(f"{2 * HOSTS_MAX - 1:032x}"), 1.0)
    assert not book.banned(HostId(f"{0:032x}"), 1.0)
