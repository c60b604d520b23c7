from __future__ import annotations

from p2pdist.swarm.core.patience import FIRST_S, LEAST_S, MOST_S, Patience


def test_before_anything_was_seen_it_waits_a_second() -> None:
    assert Patience().wait_s == FIRST_S == 1.0


def test_what_always_takes_as_long_is_waited_for_hardly_longer() -> None:
    patience = Patience()
    for _ in range(100):
        patience.took(3.0)

    assert 3.0 <= patience.wait_s < 3.1


def test_what_varies_is_waited_for_longer() -> None:
    steady, varying = Patience(), Patience()
    for i in range(100):
        steady.took(1.0)
        varying.took(0.5 + i % 2)

    assert varying.wait_s > steady.wait_s + 1.0


def test_what_is_quick_is_still_given_a_few_turns_of_a_busy_host() -> None:
    patience = Patience()
    for _ in range(100):
        patience.took(0.001)

    assert patience.wait_s == LEAST_S


def test_a_wait_in_vain_doubles_the_next_until_something_comes() -> None:
    patience = Patience()
    patience.in_vain()
    patience.in_vain()
    assert patience.wait_s == 4 * FIRST_S
    for _ in range(20):
        patience.in_vain()
    assert patience.wait_s <= MOST_S

    patience.took(0.1)

    assert patience.wait_s < 1.0
