from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.engines import json_text

KEY, URL = "registry-mirrors", "http://127.0.0.1:5300"
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
documents = st.dictionaries(st.text(), values)
layouts = st.sampled_from(
    [{"indent": None}, {"indent": 4}, {"indent": "\t"}, {"ensure_ascii": False}]
)


@given(documents, st.lists(st.text(), max_size=3) | st.none(), layouts)
def test_what_was_put_in_comes_out_again_and_nothing_else_changes(
    document: dict[str, object], mirrors: list[str] | None, layout: dict[str, object]
) -> None:
    if mirrors is not None:
        document = {**document, KEY: [m for m in mirrors if m != URL]}
    text = json.dumps(document, **layout)  # type: ignore[arg-type]  # options of dumps

    put = json_text.put_first(text, KEY, URL)
    out = json_text.take_out(put, KEY, URL)

    held = document.get(KEY, [])
    assert isinstance(held, list)
    assert json.loads(put) == {**document, KEY: [URL, *held]}
    if held:
        assert out == text
    else:  # an empty list, or the line end of an empty object, says nothing
        assert json.loads(out) == {k: v for k, v in document.items() if k != KEY or v}


@pytest.mark.parametrize(
    "text",
    [
        '{"a": ' + "[" * 100_000,
        "",
        "[]",
        "1",
        "{",
        '{"a" 1}',
        '{"a": 1,}',
        '{"a": 1} x',
        '{"a": NaN}',
        '{"a": 1, "a": 2}',
    ],
)
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        json_text.members(text)


def test_the_last_element_and_an_element_in_the_middle_come_out() -> None:
    text = '{"registry-mirrors": ["a", "b", "c"]}'

    assert json_text.take_out(text, KEY, "b") == '{"registry-mirrors": ["a", "c"]}'
    assert json_text.take_out(text, KEY, "c") == '{"registry-mirrors": ["a", "b"]}'
    assert json_text.take_out(text, KEY, "d") == text
