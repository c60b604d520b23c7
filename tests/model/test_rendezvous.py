from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.rendezvous import place_of, ranked

members = st.lists(st.text("abcdef", min_size=1, max_size=6), min_size=2, max_size=8, unique=True)


@given(st.text(max_size=30), members)
def test_the_order_of_the_members_does_not_matter(key: str, names: list[str]) -> None:
    assert ranked(key, names) == ranked(key, reversed(names))


@given(st.text(max_size=30), members)
def test_a_member_that_goes_moves_its_own_keys_only(key: str, names: list[str]) -> None:
    order = ranked(key, names)

    assert ranked(key, [n for n in names if n != order[-1]]) == order[:-1]
    assert ranked(key, order[1:]) == order[1:]


def test_keys_are_spread_over_the_members() -> None:
    owners = [ranked(f"sha256:{i}", ["a", "b", "c"])[0] for i in range(3000)]

    assert all(800 < owners.count(name) < 1200 for name in "abc")


def test_places_are_spread_evenly_and_differ_by_key() -> None:
    places = [place_of("job", f"host {i}") for i in range(3000)]

    assert all(650 < sum(k / 4 <= place < (k + 1) / 4 for place in places) < 850 for k in range(4))
    assert place_of("job", "host") == place_of("job", "host") != place_of("another", "host")


def test_the_place_agrees_with_the_rank() -> None:
    names = [f"host {i}" for i in range(50)]

    by_place = sorted(names, key=lambda name: place_of("job", name), reverse=True)
    assert by_place == ranked("job", names)
