"""When a reason begins, when it ends, and when it is said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.health import (
    EVENTS_MAX,
    RULES,
    SAY_AGAIN_S,
    SAY_PAUSE_S,
    HealthBook,
    Reason,
)

FULL = {Reason.STORE_FULL: "no room"}
AWAY = {Reason.TRACKER_AWAY: "nobody answers"}
AWAY_S = RULES[Reason.TRACKER_AWAY].begin_s


def said(book: HealthBook, conditions: dict[Reason, str], now_s: float) -> list[tuple[str, bool]]:
    return [(w.trouble.reason.value, w.over) for w in book.look(conditions, now_s)]


def test_every_reason_says_what_to_do() -> None:
    assert RULES.keys() == set(Reason)
    assert all(rule.fix for rule in RULES.values())


def test_a_condition_is_said_when_it_begins_and_when_it_is_over() -> None:
    book = HealthBook()

    assert said(book, FULL, 1.0) == [("store_full", False)]
    assert said(book, FULL, 2.0) == []
    (trouble,) = book.troubles()
    assert (trouble.detail, trouble.since_s) == ("no room", 1.0)
    assert said(book, {}, 3.0) == [("store_full", True)]
    assert book.troubles() == []


def test_a_condition_that_may_pass_is_none_before_its_time() -> None:
    book = HealthBook()

    assert said(book, AWAY, 0.0) == []
    assert said(book, AWAY, AWAY_S - 0.1) == []
    assert said(book, AWAY, AWAY_S) == [("tracker_away", False)]
    assert book.troubles()[0].since_s == 0.0


def test_an_interrupted_condition_begins_anew() -> None:
    book = HealthBook()
    book.look(AWAY, 0.0)
    book.look({}, AWAY_S - 1)

    assert said(book, AWAY, AWAY_S + 1) == []
    assert not book.active(Reason.TRACKER_AWAY)


def test_a_condition_with_an_end_outlives_a_moment_without_it() -> None:
    book, few = HealthBook(), {Reason.FEW_DESCRIPTORS: "95 %"}
    end_s = RULES[Reason.FEW_DESCRIPTORS].end_s
    book.look(few, 0.0)

    assert said(book, {}, end_s - 1) == []
    assert book.active(Reason.FEW_DESCRIPTORS)
    assert said(book, {}, end_s) == [("few_descriptors", True)]


def test_an_event_lasts_its_time() -> None:
    book, event_s = HealthBook(), RULES[Reason.WRONG_SECRET].event_s
    book.happened(Reason.WRONG_SECRET, "a", "a has another one", 0.0)

    assert said(book, {}, 0.0) == [("wrong_secret", False)]
    assert said(book, {}, event_s - 1) == []
    assert said(book, {}, event_s) == [("wrong_secret", True)]


def test_an_event_is_over_when_it_is_mended_with_the_same_party() -> None:
    book = HealthBook()
    book.happened(Reason.WRONG_SECRET, "a", "a has another one", 0.0)
    book.happened(Reason.WRONG_SECRET, "b", "b has another one", 0.0)
    book.look({}, 0.0)

    book.mended(Reason.WRONG_SECRET, "b")
    assert said(book, {}, 1.0) == []
    assert book.troubles()[0].detail == "a has another one"
    book.mended(Reason.WRONG_SECRET, "a")
    assert said(book, {}, 2.0) == [("wrong_secret", True)]


def test_what_comes_and_goes_is_said_once_in_a_while() -> None:
    book = HealthBook()
    lines = sum(len(book.look(FULL if at % 2 else {}, float(at))) for at in range(int(SAY_PAUSE_S)))

    assert lines == 2  # it began and was over
    assert said(book, FULL, SAY_PAUSE_S + 1) == [("store_full", False)]


def test_what_lasts_is_said_again_every_hour() -> None:
    book = HealthBook()
    lines = [at for at in range(3 * int(SAY_AGAIN_S)) if book.look(FULL, float(at))]

    assert lines == [0, SAY_AGAIN_S, 2 * SAY_AGAIN_S]


def test_events_of_any_number_of_parties_take_bounded_memory() -> None:
    book = HealthBook()
    for number in range(2 * EVENTS_MAX):
        book.happened(Reason.WRONG_SECRET, str(number), f"host {number}", 0.0)

    for number in range(EVENTS_MAX, 2 * EVENTS_MAX):
        book.mended(Reason.WRONG_SECRET, str(number))
    book.look({}, 0.0)
    assert not book.active(Reason.WRONG_SECRET)


@given(st.lists(st.tuples(st.sampled_from(list(Reason)), st.booleans()), max_size=60))
def test_what_is_over_was_said_to_have_begun(steps: list[tuple[Reason, bool]]) -> None:
    book = HealthBook()
    open_reasons: set[Reason] = set()
    holding: dict[Reason, str] = {}
    for at, (reason, holds) in enumerate(steps):
        if holds:
            holding[reason] = "so"
        else:
            holding.pop(reason, None)
        for word in book.look(holding, at * 7.0):
            if word.over:
                open_reasons.remove(word.trouble.reason)
            else:
                open_reasons.add(word.trouble.reason)
        assert open_reasons <= {trouble.reason for trouble in book.troubles()}
