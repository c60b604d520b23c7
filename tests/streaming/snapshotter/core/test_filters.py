"""Filters as containerd's clients write them."""

from __future__ import annotations

import pytest

from p2pdist.streaming.snapshotter.core.filters import (
    FILTER_BYTES_MAX,
    FILTERS_MAX,
    BadFilter,
    Filters,
    fields_of,
)

LABELS = {"containerd.io/snapshot.ref": "sha256:abc", "a": "b"}


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        ([], True),
        (["name==a"], True),
        (["name==b"], False),
        (["name==b", "kind==active"], True),
        (["name==a,kind==view"], False),
        (['labels."containerd.io/snapshot.ref"==sha256:abc,parent==p'], True),
        (['labels."containerd.io/snapshot.ref"==sha256:abd,parent==p'], False),
        (["labels.a"], True),
        (["labels.b"], False),
        (["labels.a!=c"], True),
        (['name~="^a$"'], True),
        (["name~=/^b/"], False),
        (['labels.a=="b"'], True),
        (["nothing==x"], False),
    ],
)
def test_filters(filters: list[str], matches: bool) -> None:
    plain = {"name": "a", "parent": "p", "kind": "active"}
    assert Filters(filters).match(fields_of(plain, LABELS)) is matches


@pytest.mark.parametrize("text", ["", "==a", "name==", "name==a,", "name=a", 'name=="a', "name~=("])
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(BadFilter):
        Filters([text])


def test_what_is_long_is_refused_before_it_is_read() -> None:
    Filters(["a"] * FILTERS_MAX)
    with pytest.raises(BadFilter, match="257 filters"):
        Filters(["a"] * (FILTERS_MAX + 1))
    with pytest.raises(BadFilter, match="bytes"):
        Filters(["a" * (FILTER_BYTES_MAX + 1)])


def test_what_is_quoted_may_hold_any_character() -> None:
    fields = fields_of({"name": 'a,"b\\'}, {"x.y": "1", "x z": "2"})

    assert Filters([r'name=="a,\"b\\"']).match(fields)
    assert Filters(['labels."x z"==2']).match(fields)
    assert Filters(["labels.x.y==|1|"]).match(fields)
    assert not Filters(['labels."x z"==|3|']).match(fields)
