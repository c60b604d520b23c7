"""Who may read what, by the last word of a registry, in simulated time."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pdist.oci.names import ImageName
from p2pdist.registry_proxy.core.callers import (
    NO_S,
    RETRY_S,
    YES_S,
    CallerBook,
    CallerKey,
    Standing,
)

APP = ImageName("registry.test", "team/app")
OTHER = ImageName("registry.test", "team/other")
ALICE = CallerKey(APP, b"alice")
BOB = CallerKey(APP, b"bob")
GRACE_S = 600.0


def test_nobody_is_allowed_before_the_registry_said_so() -> None:
    assert CallerBook().standing(ALICE, 0.0) is Standing.UNKNOWN


def test_a_yes_is_good_for_a_minute_from_its_question() -> None:
    book = CallerBook()
    book.allowed(ALICE, asked_s=10.0)

    assert book.standing(ALICE, 10.0 + YES_S - 0.1) is Standing.ALLOWED
    assert book.standing(ALICE, 10.0 + YES_S) is Standing.UNKNOWN


def test_a_yes_is_for_one_caller_and_one_repository() -> None:
    book = CallerBook()
    book.allowed(ALICE, asked_s=0.0)

    assert book.standing(BOB, 1.0) is Standing.UNKNOWN
    assert book.standing(CallerKey(OTHER, b"alice"), 1.0) is Standing.UNKNOWN
    elsewhere = ImageName("other.test", APP.repository)
    assert book.standing(CallerKey(elsewhere, b"alice"), 1.0) is Standing.UNKNOWN


def test_a_no_is_good_for_five_seconds_and_ends_a_yes() -> None:
    book = CallerBook()
    book.allowed(ALICE, asked_s=0.0, probe="1")
    book.refused(ALICE, 1.0)

    assert book.standing(ALICE, 1.0 + NO_S - 0.1) is Standing.DENIED
    assert book.standing(ALICE, 1.0 + NO_S) is Standing.UNKNOWN
    assert book.probe(ALICE) == ""
    assert not book.unanswered(ALICE, 7.0), "no grace after a no"


def test_whether_another_token_might_help_is_remembered_with_a_no() -> None:
    book = CallerBook()
    book.refused(ALICE, 1.0, final=True)
    assert book.is_final(ALICE)

    book.refused(ALICE, 2.0)
    assert not book.is_final(ALICE)
    assert not book.is_final(BOB)


def test_a_yes_that_was_asked_for_before_a_no_does_not_overrule_it() -> None:
    book = CallerBook()
    book.refused(ALICE, 2.0)
    book.allowed(ALICE, asked_s=1.0)
    assert book.standing(ALICE, 3.0) is Standing.DENIED

    book.allowed(ALICE, asked_s=2.5)
    assert book.standing(ALICE, 3.0) is Standing.ALLOWED


def test_with_the_registry_silent_a_known_caller_keeps_access_for_the_grace() -> None:
    book = CallerBook(grace_s=GRACE_S)
    book.allowed(ALICE, asked_s=0.0)
    now_s = YES_S + 1

    assert book.unanswered(ALICE, now_s)
    assert book.standing(ALICE, now_s) is Standing.ALLOWED
    assert book.in_grace(ALICE, now_s)
    assert book.standing(ALICE, now_s + RETRY_S) is Standing.UNKNOWN, "the registry is asked again"
    assert book.unanswered(ALICE, YES_S + GRACE_S - 1)
    assert book.standing(ALICE, YES_S + GRACE_S) is Standing.UNKNOWN
    assert not book.unanswered(ALICE, YES_S + GRACE_S)
    assert not book.unanswered(BOB, 0.0), "whom nobody ever allowed"


def test_callers_are_bounded() -> None:
    book = CallerBook(callers_max=2)
    for caller in (b"a", b"b", b"c"):
        book.allowed(CallerKey(APP, caller), asked_s=0.0)

    assert len(book) == 2
    assert book.standing(CallerKey(APP, b"a"), 1.0) is Standing.UNKNOWN


KEYS = st.sampled_from([ALICE, BOB, CallerKey(OTHER, b"alice")])


class Callers(RuleBasedStateMachine):
    """Whoever is allowed had a yes, no later no, and time left."""

    def __init__(self) -> None:
        super().__init__()
        self.book = CallerBook(grace_s=100.0)
        self.now_s = 0.0
        self.yes: dict[CallerKey, float] = {}
        self.no: dict[CallerKey, float] = {}

    @rule(seconds=st.floats(0.0, 200.0))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(key=KEYS, ago_s=st.floats(0.0, 10.0), probe=st.sampled_from(["", "1"]))
    def allowed(self, key: CallerKey, ago_s: float, probe: str) -> None:
        asked_s = self.now_s - ago_s
        self.book.allowed(key, asked_s=asked_s, probe=probe)
        if asked_s > self.no.get(key, -1e9):
            self.yes[key] = max(asked_s, self.yes.get(key, -1e9))

    @rule(key=KEYS)
    def refused(self, key: CallerKey) -> None:
        self.book.refused(key, self.now_s)
        self.no[key] = self.now_s
        self.yes.pop(key, None)
        assert self.book.standing(key, self.now_s) is Standing.DENIED

    @rule(key=KEYS)
    def unanswered(self, key: CallerKey) -> None:
        keeps = self.book.unanswered(key, self.now_s)
        assert keeps == (key in self.yes and self.now_s < self.yes[key] + YES_S + 100.0)
        if not keeps:
            self.yes.pop(key, None)

    @invariant()
    def only_who_was_allowed_is(self) -> None:
        self.book.validate()
        for key in (ALICE, BOB, CallerKey(OTHER, b"alice")):
            if self.book.standing(key, self.now_s) is Standing.ALLOWED:
                assert self.now_s < self.yes[key] + YES_S + 100.0
            elif key in self.yes:
                assert self.now_s >= self.yes[key] + YES_S


TestCallers = Callers.TestCase
