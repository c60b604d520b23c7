from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.tracker.core.selector import Candidate, parse_labels, parse_selector


def host(name: str, *labels: str) -> Candidate:
    return Candidate(f"id of {name}", name, parse_labels(labels))


HOSTS = [
    host("web-1", "role=web", "zone=a"),
    host("web-2", "role=web", "zone=b"),
    host("web-3", "role=web", "zone=b"),
    host("db-1", "role=db", "zone=a"),
    host("bare"),
]


def chosen(text: str) -> set[str]:
    return {one.removeprefix("id of ") for one in parse_selector(text).choose(HOSTS)}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("*", {"web-1", "web-2", "web-3", "db-1", "bare"}),
        ("web-*", {"web-1", "web-2", "web-3"}),
        ("web-[12]", {"web-1", "web-2"}),
        ("role=web", {"web-1", "web-2", "web-3"}),
        ("role=web,zone=b", {"web-2", "web-3"}),
        ("role=web, zone!=b", {"web-1"}),
        ("zone!=b", {"web-1", "db-1", "bare"}),
        ("role=*", {"web-1", "web-2", "web-3", "db-1"}),
        ("web-1;role=db", {"web-1", "db-1"}),
        ("nobody", set()),
    ],
)
def test_names_and_labels(text: str, names: set[str]) -> None:
    assert chosen(text) == names


@pytest.mark.parametrize(
    ("text", "count"), [("*,2", 2), ("role=web,2", 2), ("role=web,50%", 2), ("*,1%", 1), ("*,9", 5)]
)
def test_shares_and_counts_round_up_and_stop_at_all(text: str, count: int) -> None:
    assert len(chosen(text)) == count


@given(st.integers(1, 99), st.integers(1, 99))
def test_a_larger_share_contains_the_smaller(first: int, second: int) -> None:
    small, large = sorted((first, second))
    hosts = [host(f"h{number}") for number in range(200)]
    less = parse_selector(f"*,{small}%").choose(hosts)

    assert less <= parse_selector(f"*,{large}%").choose(hosts)
    assert len(less) == small * 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no part of a selector"),
        ("role=web,", "no part of a selector"),
        ("we b", "'we b' is no part"),
        ("*,0", "for 0 hosts"),
        ("*,0%", "no share"),
        ("*,101%", "no share"),
        (",".join(["a"] * 65), "at most 64"),
    ],
)
def test_what_is_no_selector_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_selector(text)


def test_who_comes_later_is_admitted_by_name_and_label_but_not_by_share() -> None:
    late = host("web-9", "role=web")

    assert parse_selector("web-*").admits(late)
    assert not parse_selector("db-*").admits(late)
    assert not parse_selector("web-*,50%").admits(late)
    assert parse_selector("db-*,1;role=web").admits(late)
