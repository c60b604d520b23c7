from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.places import Places


def taken(most: int, *who: str) -> tuple[Places[str, int], list[int | None]]:
    """Return the places, and who lost one when each of them came, in turn."""
    places: Places[str, int] = Places(most)
    return places, [places.take(one, number) for number, one in enumerate(who)]


def test_who_comes_while_there_is_room_gets_a_place() -> None:
    places, out = taken(3, "a", "b", "a")

    assert out == [None, None, None]
    assert len(places) == 3


def test_who_holds_most_makes_room_by_its_eldest() -> None:
    places, out = taken(4, "a", "b", "a", "a", "c")

    assert out[-1] == 0
    assert 0 not in places
    assert 4 in places


def test_nobody_makes_room_for_one_who_has_as_many() -> None:
    """A storm of many hosts, each with one connection, is served in its order."""
    places, out = taken(2, "a", "b", "c", "a")

    assert out == [None, None, 2, 3]
    assert 0 in places
    assert 1 in places


def test_a_place_is_not_passed_to_and_fro() -> None:
    _, out = taken(3, "a", "a", "b", "b")

    assert out[-1] == 3


def test_who_has_most_may_give_up_its_own_eldest() -> None:
    """Slow handshakes of a host do not keep out another one behind the same address."""
    places: Places[str, int] = Places(3, eldest_goes=True)
    out = [places.take(one, number) for number, one in enumerate("aabaab")]

    assert out == [None, None, None, 0, 1, 5]
    assert [number in places for number in (2, 3, 4)] == [True] * 3


def test_of_many_with_one_each_none_gives_up() -> None:
    places: Places[str, int] = Places(2, eldest_goes=True)

    assert [places.take(one, number) for number, one in enumerate("abc")] == [None, None, 2]


def test_a_place_that_was_given_back_is_free() -> None:
    places, _ = taken(1, "a")
    places.leave(0)
    places.leave(0)

    assert places.take("a", 7) is None


@given(most=st.integers(0, 6), steps=st.lists(st.tuples(st.sampled_from("abcd"), st.booleans())))
def test_they_stay_bounded_and_even(most: int, steps: list[tuple[str, bool]]) -> None:
    places: Places[str, int] = Places(most)
    held: dict[int, str] = {}
    for number, (who, leaves) in enumerate(steps):
        shares = Counter(held.values())
        loser = places.take(who, number)
        if loser is None:
            assert len(held) < most
        elif loser != number:
            assert shares[held[loser]] == max(shares.values()) >= shares[who] + 2
            assert loser == min(item for item, one in held.items() if one == held[loser])
            del held[loser]
        if loser != number:
            held[number] = who
        if leaves and held:
            places.leave(eldest := min(held))
            del held[eldest]
        assert set(held) == {item for item in range(number + 1) if item in places}
        assert len(places) == len(held) <= most
