from __future__ import annotations

from p2pdist.model.ids import HostId
from p2pdist.swarm.core.trust import (
    BAN_FIRST_S,
    BAN_MAX_S,
    FORGIVEN_S,
    HOSTS_MAX,
    STRIKES_MAX,
    TrustBook,
)

LIAR = HostId("a" * 32)


def ban_s(book: TrustBook, now_s: float) -> float:
    """Have the liar banned at `now_s`; return for how long."""
    assert book.strike(LIAR, now_s, STRIKES_MAX)
    length_s = 0.0
    while book.banned(LIAR, now_s + length_s):
        length_s += 1.0
    return length_s


def test_the_third_wrong_chunk_bans() -> None:
    book = TrustBook()

    outcomes = [book.strike(LIAR, 0.0) for _ in range(STRIKES_MAX)]

    assert outcomes == [False, False, True]
    assert book.banned(LIAR, 1.0)


def test_a_link_may_end_without_a_ban() -> None:
    book = TrustBook()

    outcomes = [book.strike(LIAR, 0.0, ban=False) for _ in range(2 * STRIKES_MAX)]

    assert outcomes == [False, False, True] * 2
    assert not book.banned(LIAR, 0.0)
    assert book.bans_total == 0


def test_what_a_man_on_the_wire_can_bring_about_is_short() -> None:
    book = TrustBook()

    assert ban_s(book, 0.0) == BAN_FIRST_S


def test_a_host_that_is_wrong_again_waits_longer_each_time() -> None:
    book, now_s, lengths = TrustBook(), 0.0, []
    for _ in range(6):
        lengths.append(ban_s(book, now_s))
        now_s += lengths[-1]

    assert lengths == [5, 10, 20, 40, BAN_MAX_S, BAN_MAX_S]


def test_a_host_that_was_right_for_long_begins_anew() -> None:
    book = TrustBook()
    ended_s = ban_s(book, 0.0)
    ended_s += ban_s(book, ended_s)

    assert ban_s(book, ended_s + FORGIVEN_S - 1) == 4 * BAN_FIRST_S
    ended_s += FORGIVEN_S - 1 + 4 * BAN_FIRST_S
    assert ban_s(book, ended_s + FORGIVEN_S) == BAN_FIRST_S


def test_what_was_on_its_way_already_makes_a_ban_no_longer() -> None:
    book = TrustBook()
    ban_s(book, 0.0)

    assert not book.strike(LIAR, 1.0, STRIKES_MAX)
    assert not book.banned(LIAR, BAN_FIRST_S)
    assert book.bans_total == 1


def test_the_book_stays_bounded() -> None:
    book = TrustBook()
    for i in range(2 * HOSTS_MAX):
        book.strike(HostId(f"{i:032x}"), 0.0, STRIKES_MAX)

    assert book.banned(HostId(f"{2 * HOSTS_MAX - 1:032x}"), 1.0)
    assert not book.banned(HostId(f"{0:032x}"), 1.0)
