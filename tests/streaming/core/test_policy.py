"""What is fetched ahead of readers, and what of all the rest: each rule by an example."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from p2pdist.model.ids import digest_of
from p2pdist.streaming.core import policy
from p2pdist.streaming.core.policy import (
    AHEAD_AT_ONCE,
    AHEAD_SPANS,
    EXPECTED_BYTES,
    EXPECTED_S,
    FILL_AGAIN_MAX_S,
    FILL_AGAIN_S,
    AheadEvent,
    AheadOrder,
    AheadPolicy,
    Asked,
    Bring,
    Drop,
    Ended,
    Expected,
    Fill,
    FillEvent,
    FillOrder,
    FillPolicy,
    Gone,
    Held,
    Lacking,
    Look,
    More,
    Open,
    Read,
    Shown,
    Why,
    expected_spans,
)
from tests.streaming.archives import archive, file, gzipped, index_of, text

MIB = 1 << 20
FAR = 1000
"""A file that goes on."""


class Ahead:
    """The policy, checked after each event."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.policy = AheadPolicy()

    def tell(self, event: AheadEvent) -> list[AheadOrder]:
        orders = self.policy.handle(event, self.now_s)
        self.policy.validate()
        return orders

    def shown(self, layer: int, *spans: int, nbytes: int = MIB) -> list[AheadOrder]:
        expected: Sequence[Expected] = [(span, nbytes) for span in spans]
        return self.tell(Shown(layer, expected))

    def read(self, layer: int, span: int, file_last: int = FAR) -> list[AheadOrder]:
        return self.tell(Read(layer, span, file_last))

    def ended(self, order: AheadOrder, *, unread: bool = False) -> list[AheadOrder]:
        assert not isinstance(order, Drop)
        return self.tell(Ended(order, unread))

    def passes(self, seconds: float) -> list[AheadOrder]:
        self.now_s += seconds
        orders = self.policy.handle_deadline(self.now_s)
        self.policy.validate()
        return orders

    def all_opened(self, orders: list[AheadOrder]) -> list[AheadOrder]:
        """What is ordered until nothing more is, when each one that is EXPECTED stays unread."""
        seen = list[AheadOrder]()
        while orders:
            seen += orders
            later = list[AheadOrder]()
            for order in orders:
                expected = isinstance(order, Open) and order.why is Why.EXPECTED
                later += self.ended(order, unread=expected)
            orders = later
        return seen


@pytest.fixture
def ahead() -> Ahead:
    return Ahead()


def nexts(layer: int, *spans: int) -> list[AheadOrder]:
    return [Open(layer, span, Why.AHEAD) for span in spans]


def expected(layer: int, *spans: int, nbytes: int = MIB) -> list[AheadOrder]:
    return [Open(layer, span, Why.EXPECTED, nbytes) for span in spans]


# --- who reads on ---------------------------------------------------------------------------------


def test_who_reads_on_has_the_next_spans_fetched_each_once(ahead: Ahead) -> None:
    ahead.shown(1)
    assert ahead.read(1, 7) == [], "nobody knows yet whether it is read on"
    first = ahead.read(1, 8)
    assert first == nexts(1, 9, 10, 11)
    assert len(first) == AHEAD_SPANS
    assert ahead.read(1, 8) == []
    assert ahead.ended(first[0]) == []
    assert ahead.read(1, 9) == nexts(1, 12)


def test_nothing_behind_the_end_of_a_file_is_fetched_for_it(ahead: Ahead) -> None:
    ahead.shown(1)
    assert ahead.read(1, 0, file_last=1) == nexts(1, 1)
    assert ahead.read(1, 1, file_last=1) == []


def test_who_reads_on_elsewhere_begins_anew(ahead: Ahead) -> None:
    ahead.shown(1)
    ahead.all_opened(ahead.read(1, 0))
    assert ahead.read(1, 50) == []
    assert ahead.read(1, 0) == []
    assert ahead.read(1, 1) == nexts(1, 2, 3, 4), "they may be kept no more"


def test_so_many_are_fetched_at_once_and_the_oldest_wish_comes_first(ahead: Ahead) -> None:
    for layer in (1, 2):
        ahead.shown(layer)
    first = ahead.read(1, 0)
    assert [*first, *ahead.read(2, 0)] == [*nexts(1, 1, 2, 3), *nexts(2, 1)]
    assert AHEAD_AT_ONCE == 4
    assert ahead.ended(first[0]) == nexts(2, 2)


def test_what_is_read_meanwhile_is_not_fetched_ahead_of_it(ahead: Ahead) -> None:
    for layer in (1, 2):
        ahead.shown(layer)
    first = ahead.read(1, 0)
    ahead.read(2, 0)
    ahead.read(2, 2)  # waits for a place
    assert ahead.ended(first[0]) == nexts(2, 3)


# --- what starts read elsewhere -------------------------------------------------------------------


def test_a_trace_is_followed_in_its_order_one_span_at_a_time(ahead: Ahead) -> None:
    assert ahead.shown(1, 5, 2) == expected(1, 5)
    assert ahead.shown(2, 9) == []
    assert ahead.ended(*expected(1, 5), unread=True) == expected(1, 2)
    assert ahead.ended(*expected(1, 2), unread=True) == expected(2, 9)


def test_nothing_ends_that_was_not_ordered(ahead: Ahead) -> None:
    ahead.shown(1, 5)
    with pytest.raises(AssertionError):
        ahead.tell(Ended(Bring(1, 5)))


def test_what_nobody_brings_is_left_to_its_reader(ahead: Ahead) -> None:
    assert ahead.shown(1, 5, 2) == expected(1, 5)
    assert ahead.ended(*expected(1, 5)) == expected(1, 2)
    assert ahead.policy.next_deadline_s() is None


def test_who_reads_what_is_expected_does_not_wait_for_its_turn(ahead: Ahead) -> None:
    """He fetches it himself, and nobody does so again."""
    ahead.shown(1, 5, 20, 6)
    assert ahead.read(1, 20) == []
    assert ahead.ended(*expected(1, 5), unread=True) == expected(1, 6)


def test_what_comes_next_goes_before_what_is_expected(ahead: Ahead) -> None:
    ahead.shown(1, 50, 1, 60)
    assert ahead.read(1, 0) == nexts(1, 1, 2, 3), "the first of them was expected, too"
    assert ahead.ended(*expected(1, 50), unread=True) == expected(1, 60)


def test_what_is_expected_and_open_is_not_fetched_for_who_reads_on(ahead: Ahead) -> None:
    ahead.all_opened(ahead.shown(1, 1))
    assert ahead.read(1, 0) == nexts(1, 2, 3)


def test_beyond_its_room_it_comes_to_the_mirror_alone(ahead: Ahead) -> None:
    half = EXPECTED_BYTES // 2
    orders = ahead.all_opened(ahead.shown(1, 5, 6, 7, nbytes=half))
    assert orders == [*expected(1, 5, 6, nbytes=half), Bring(1, 7)]


def test_what_is_read_makes_room(ahead: Ahead) -> None:
    ahead.all_opened(ahead.shown(1, 5, nbytes=EXPECTED_BYTES))
    ahead.read(1, 5)
    assert ahead.shown(2, 6, nbytes=EXPECTED_BYTES) == expected(2, 6, nbytes=EXPECTED_BYTES)


def test_what_failed_takes_no_room(ahead: Ahead) -> None:
    (order,) = ahead.shown(1, 5, nbytes=EXPECTED_BYTES)
    ahead.ended(order)
    assert ahead.shown(2, 6, nbytes=EXPECTED_BYTES) == expected(2, 6, nbytes=EXPECTED_BYTES)


def test_what_is_read_while_it_comes_is_nobodys_any_more(ahead: Ahead) -> None:
    (order,) = ahead.shown(1, 5, nbytes=EXPECTED_BYTES)
    ahead.read(1, 5)
    assert ahead.ended(order, unread=True) == []
    assert ahead.policy.next_deadline_s() is None
    assert ahead.shown(2, 6, nbytes=EXPECTED_BYTES) == expected(2, 6, nbytes=EXPECTED_BYTES)


def test_what_nobody_reads_is_dropped_in_time(ahead: Ahead) -> None:
    first, second = expected(1, 5, 6)
    ahead.shown(1, 5, 6)
    ahead.ended(first, unread=True)
    ahead.now_s += 1
    ahead.ended(second, unread=True)
    assert ahead.policy.next_deadline_s() == ahead.now_s - 1 + EXPECTED_S
    assert ahead.passes(EXPECTED_S - 1.5) == []
    assert ahead.passes(0.5) == [Drop(1, 5)]
    assert ahead.passes(1) == [Drop(1, 6)]
    assert ahead.policy.next_deadline_s() is None


# --- what is gone ---------------------------------------------------------------------------------


def test_of_what_is_gone_nothing_is_ordered_and_nothing_stays(ahead: Ahead) -> None:
    ahead.shown(1, 50, 60, 70)
    (order,) = ahead.ended(*expected(1, 50), unread=True)
    assert ahead.tell(Gone(1)) == [Drop(1, 50)]
    assert ahead.shown(2, 9) == [], "the place is taken until it ends"
    assert ahead.ended(order, unread=True) == [Drop(1, 60), *expected(2, 9)]


def test_of_what_is_gone_a_reader_may_still_be_there(ahead: Ahead) -> None:
    ahead.shown(1, 5, 6)
    ahead.tell(Gone(1))
    ahead.tell(Gone(1))
    assert ahead.read(1, 0) == []
    assert ahead.ended(*expected(1, 5)) == []


# --- from units of a trace to spans ---------------------------------------------------------------


def test_a_trace_names_each_span_once_and_nothing_behind_the_archive() -> None:
    index = index_of(gzipped(archive(file("a", text(3 * MIB)))), span_bytes=400 << 10)
    units = [2, 0, 2, 999_999, -1, -5]

    named = expected_spans(index, units)

    def of(unit: int) -> list[int]:
        last = min((unit + 1) * MIB, index.diff_bytes) - 1
        return list(range(index.span_at(unit * MIB), index.span_at(last) + 1))

    assert [span for span, _ in named] == list(dict.fromkeys([*of(2), *of(0)]))
    assert all(
        nbytes == index.span_end(span) - index.spans[span].out_offset for span, nbytes in named
    )
    assert expected_spans(index, []) == []


# --- all the rest ---------------------------------------------------------------------------------

A, B, C = digest_of(b"a"), digest_of(b"b"), digest_of(b"c")


class Filling:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.policy = FillPolicy()

    def tell(self, event: FillEvent) -> list[FillOrder]:
        orders = self.policy.handle(event, self.now_s)
        self.policy.validate()
        return orders

    def pause_s(self) -> float:
        """How long it rests now; it looks again then."""
        until_s = self.policy.next_deadline_s()
        assert until_s is not None
        assert self.policy.handle_deadline(until_s - 0.01) == []
        pause_s, self.now_s = until_s - self.now_s, until_s
        assert self.policy.handle_deadline(until_s) == [Look()]
        self.policy.validate()
        return pause_s


@pytest.fixture
def filling() -> Filling:
    made = Filling()
    assert made.tell(More()) == [Look()]
    return made


def test_layers_are_asked_for_one_by_one_in_their_order(filling: Filling) -> None:
    assert filling.tell(Lacking([B, A, B])) == [Fill(B)]
    assert filling.tell(Asked(B, held=False)) == [Fill(A)]
    assert filling.tell(Asked(A, held=True)) == [Held(A)]
    assert filling.policy.held == {A}


def test_what_is_held_is_not_asked_for_again(filling: Filling) -> None:
    filling.tell(Lacking([A, B]))
    filling.tell(Asked(A, held=True))
    filling.tell(Asked(B, held=False))
    filling.pause_s()
    assert filling.tell(Lacking([A, B])) == [Fill(B)]
    assert filling.tell(Asked(B, held=True)) == [Held(B)]
    assert filling.policy.next_deadline_s() is None, "all is here"
    assert filling.tell(More()) == [Look()]
    assert filling.tell(Lacking([A, B])) == []


def test_the_mirror_is_asked_again_and_ever_less_often(filling: Filling) -> None:
    pauses_s = []
    for _ in range(7):
        filling.tell(Lacking([A]))
        filling.tell(Asked(A, held=False))
        pauses_s.append(filling.pause_s())
    assert pauses_s == [FILL_AGAIN_S, 2, 4, 8, 16, FILL_AGAIN_MAX_S, FILL_AGAIN_MAX_S]


def test_what_is_new_is_looked_at_at_once(filling: Filling) -> None:
    for _ in range(3):
        filling.tell(Lacking([A]))
        filling.tell(Asked(A, held=False))
        filling.pause_s()
    filling.tell(Lacking([A]))
    filling.tell(Asked(A, held=False))
    assert filling.tell(More()) == [Look()]
    assert filling.tell(Lacking([A, C])) == [Fill(A)]
    assert filling.tell(More()) == [], "after this round"
    assert filling.tell(Asked(A, held=False)) == [Fill(C)]
    assert filling.tell(Asked(C, held=False)) == [Look()]
    filling.tell(Lacking([A]))
    filling.tell(Asked(A, held=False))
    assert filling.pause_s() == FILL_AGAIN_S, "from the shortest pause on"


def test_what_is_shown_no_more_is_forgotten(filling: Filling) -> None:
    filling.tell(Lacking([A, B]))
    filling.tell(Asked(A, held=True))
    filling.tell(Asked(B, held=False))
    filling.pause_s()
    assert filling.tell(Lacking([B])) == [Fill(B)]
    assert filling.policy.held == set()
    filling.tell(Asked(B, held=True))
    filling.tell(More())
    assert filling.tell(Lacking([A])) == [Fill(A)], "it may have left the mirror since"


def test_of_nothing_nothing_follows(filling: Filling) -> None:
    assert filling.policy.handle_deadline(1e9) == []
    assert filling.tell(Lacking([])) == []
    assert filling.policy.next_deadline_s() is None
    assert policy.FILLS_AT_ONCE == 1
