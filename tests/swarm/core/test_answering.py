"""When a proxy hangs, and when it does no longer."""

from __future__ import annotations

import pytest

from p2pdist.swarm.core.answering import (
    HUNG_S,
    PROBE_AGAIN_FIRST_S,
    PROBE_AGAIN_MAX_S,
    USUAL_MAX_S,
    USUAL_MIN_S,
    AnswerBook,
)

ONE, TWO = "http://one", "http://two"


@pytest.fixture
def book() -> AnswerBook:
    return AnswerBook([ONE, TWO])


def hang(book: AnswerBook, name: str, now_s: float) -> None:
    assert book.doubt(name, now_s)
    assert book.unanswered(name, now_s + HUNG_S)


def test_a_probe_without_an_answer_shows_that_a_proxy_hangs(book: AnswerBook) -> None:
    assert book.doubt(ONE, 10.0)
    assert not book.unanswered(ONE, 10.0 + HUNG_S - 0.1)
    assert not book.hung(ONE)

    assert book.unanswered(ONE, 10.0 + HUNG_S)

    assert book.hanging == [ONE]
    assert not book.all_hang
    assert not book.unanswered(ONE, 20.0)  # it was said


def test_all_hang_when_each_does(book: AnswerBook) -> None:
    hang(book, ONE, 0.0)
    hang(book, TWO, 0.0)

    assert book.all_hang
    assert not AnswerBook([]).all_hang


def test_any_sign_of_life_ends_it_at_once(book: AnswerBook) -> None:
    hang(book, ONE, 10.0)

    assert book.heard(ONE, 20.0)

    assert not book.hung(ONE)
    assert not book.heard(ONE, 21.0)


def test_what_was_heard_before_proves_nothing(book: AnswerBook) -> None:
    book.heard(ONE, 9.0)
    hang(book, ONE, 10.0)

    assert not book.heard(ONE, 9.0)

    assert book.hung(ONE)


def test_a_proxy_that_sends_anything_meanwhile_does_not_hang(book: AnswerBook) -> None:
    book.doubt(ONE, 10.0)
    book.heard(ONE, 11.5)

    assert not book.unanswered(ONE, 11.5 + HUNG_S - 0.1)
    assert book.unanswered(ONE, 11.5 + HUNG_S)


def test_one_that_died_does_not_hang(book: AnswerBook) -> None:
    hang(book, ONE, 10.0)

    assert book.gone(ONE)

    assert not book.hung(ONE)
    assert not book.gone(ONE)


def test_one_probe_is_out_at_a_time_and_the_pauses_between_them_grow(book: AnswerBook) -> None:
    now_s, pauses_s = 0.0, []
    for _ in range(8):
        assert book.doubt(ONE, now_s)
        assert not book.doubt(ONE, now_s)
        book.heard(ONE, now_s + 0.001)
        book.probe_over(ONE, now_s)
        pause_s = PROBE_AGAIN_FIRST_S / 4
        while not (again := book.doubt(ONE, now_s + pause_s)) and pause_s < 60:
            pause_s += PROBE_AGAIN_FIRST_S / 4
        assert again
        pauses_s.append(pause_s)
        book.probe_over(ONE, now_s + pause_s)
        now_s += 60.0

    assert pauses_s[0] == PROBE_AGAIN_FIRST_S
    assert pauses_s == sorted(pauses_s)
    assert pauses_s[-1] == PROBE_AGAIN_MAX_S


def test_pauses_start_anew_after_a_hang(book: AnswerBook) -> None:
    hang(book, ONE, 0.0)
    for _ in range(5):
        book.next_pause_s(ONE)
    assert book.next_pause_s(ONE) == PROBE_AGAIN_MAX_S

    book.heard(ONE, 10.0)

    assert book.next_pause_s(ONE) == PROBE_AGAIN_FIRST_S


def test_the_usual_time_to_an_answer_is_learnt_within_bounds(book: AnswerBook) -> None:
    assert book.usual_s(ONE) == USUAL_MAX_S
    for _ in range(20):
        book.answered(ONE, 0.002, 1.0)
    assert book.usual_s(ONE) == USUAL_MIN_S
    for _ in range(20):
        book.answered(ONE, 0.5, 2.0)
    assert USUAL_MIN_S < book.usual_s(ONE) < USUAL_MAX_S
    for _ in range(20):
        book.answered(ONE, 5.0, 3.0)
    assert book.usual_s(ONE) == USUAL_MAX_S
    assert book.usual_s(TWO) == USUAL_MAX_S
