from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.ids import HostId
from p2pdist.swarm.core.referrals import PAUSE_FIRST_S, PAUSE_MAX_S, Referrals

A, B, C = (HostId(x * 32) for x in "abc")


def test_who_asks_first_is_served_and_the_next_is_referred() -> None:
    referrals = Referrals()

    assert not referrals.refers(A, 0b11, 0, 0.0)
    referrals.sending(A, 0b11)

    assert referrals.refers(B, 0b11, 0, 0.0)
    assert referrals.refers(C, 0b01, 0, 0.0)


def test_what_peers_have_is_left_to_them() -> None:
    assert Referrals().refers(A, 0b11, 0b111, 0.0)


def test_who_needs_more_than_peers_have_is_served() -> None:
    referrals = Referrals()
    referrals.sending(A, 0b01)

    assert not referrals.refers(B, 0b111, 0b010, 0.0)


def test_what_was_not_sent_in_the_end_refers_nobody() -> None:
    referrals = Referrals()
    referrals.sending(A, 0b11)
    referrals.sent(A, 0b11)

    assert not referrals.refers(B, 0b11, 0, 0.0)


def test_what_went_to_a_host_that_is_gone_refers_nobody() -> None:
    referrals = Referrals()
    referrals.sending(A, 0b11)
    referrals.left(A)
    referrals.sent(A, 0b11)

    assert not referrals.refers(B, 0b11, 0, 0.0)


def test_who_comes_back_is_served_and_left_alone_for_a_while() -> None:
    referrals = Referrals()
    assert referrals.refers(A, 0b01, ~0, 10.0)

    assert not referrals.refers(A, 0b01, ~0, 10.3)
    assert not referrals.refers(A, 0b10, ~0, 10.3 + PAUSE_FIRST_S / 2)
    assert referrals.refers(A, 0b10, ~0, 10.3 + PAUSE_FIRST_S)


def test_a_host_that_reaches_nobody_is_referred_ever_more_seldom() -> None:
    referrals, now_s, times = Referrals(), 0.0, list[float]()
    while len(times) < 12:
        if referrals.refers(A, 0b1, ~0, now_s):
            times.append(now_s)
            assert not referrals.refers(A, 0b1, ~0, now_s)
        now_s += 0.5

    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[0] == PAUSE_FIRST_S
    assert pauses[-1] == PAUSE_MAX_S


def test_a_referral_that_brought_it_makes_good_for_those_in_vain() -> None:
    referrals = Referrals()
    for now_s in (0.0, 100.0):
        assert referrals.refers(A, 0b1, ~0, now_s)
        assert not referrals.refers(A, 0b1, ~0, now_s)
    assert referrals.refers(A, 0b10, ~0, 200.0)
    referrals.holds(A, 0b10)

    assert referrals.refers(A, 0b100, ~0, 200.0)
    assert not referrals.refers(A, 0b100, ~0, 200.0)
    assert referrals.refers(A, 0b1000, ~0, 200.0 + PAUSE_FIRST_S)


events = st.tuples(
    st.sampled_from(("refers", "sending", "sent", "holds", "left")),
    st.sampled_from((A, B)),
    st.integers(1, 15),
)


@given(st.lists(events, max_size=40))
def test_whatever_happens_nobody_is_referred_twice_in_a_row_for_the_same(
    happened: list[tuple[str, HostId, int]],
) -> None:
    referrals, now_s = Referrals(), 0.0
    referred = {A: 0, B: 0}
    for kind, host, bits in happened:
        now_s += 0.5
        match kind:
            case "refers":
                if referrals.refers(host, bits, 0b1010, now_s):
                    assert not referred[host] & bits
                    referred[host] |= bits
                elif referred[host] & bits:
                    referred[host] = 0
            case "sending":
                referrals.sending(host, bits)
            case "sent":
                referrals.sent(host, bits)
            case "holds":
                referrals.holds(host, bits)
                referred[host] &= ~bits
            case _:
                referrals.left(host)
                referred[host] = 0
