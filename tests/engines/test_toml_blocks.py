"""Values that are put into TOML text and taken out of it again."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.engines.toml_blocks import BEGIN, END, marked, with_values, without_blocks
from p2pdist.errors import ConfigError

PATH = Path("/etc/engine.toml")
TABLE = ("plugins", "io.test.v1", "inner")

TEXTS = [
    "",
    "version = 2\n",
    '[plugins."io.test.v1".inner]\n  other = 1\n',
    '[plugins."io.test.v1".inner]\n  snapshotter = "overlayfs" # the usual one\n  other = 1\n',
    '[plugins."io.test.v1".inner]\n  list = [\n    "a",\n    "b",\n  ]\n'
    '[z]\n  snapshotter = "of z"\n',
    '[plugins."io.test.v1".inner]\r\n  snapshotter = "overlayfs"\r\n',
    '[plugins]\n  [plugins."io.test.v1"]\n    [plugins."io.test.v1".inner]\n      list = []\n',
]
values = st.fixed_dictionaries(
    {},
    optional={
        "snapshotter": st.sampled_from(["p2pdist", "overlayfs"]),
        "list": st.lists(st.text(max_size=5), max_size=3),
        "fresh": st.one_of(st.booleans(), st.dictionaries(st.text(max_size=5), st.integers(0, 9))),
    },
)


@given(st.sampled_from(TEXTS), values)
def test_what_is_put_in_is_there_and_comes_out_without_a_trace(
    text: str, given_values: dict[str, Any]
) -> None:
    edited = with_values(text, TABLE, given_values, PATH)

    before, after = tomllib.loads(text), tomllib.loads(edited)
    table = after.get("plugins", {}).get("io.test.v1", {}).get("inner", {})
    assert {key: table[key] for key in given_values} == given_values
    assert after.get("z") == before.get("z"), "another table is as it was"
    assert without_blocks(edited).replace("\r\n", "\n") == text.replace("\r\n", "\n")
    assert marked(edited.encode()) is (edited != text)


def test_a_value_that_is_there_stays_beside_the_one_that_replaces_it() -> None:
    text = '[a]\n  x = "old"\n  y = 1\n'

    edited = with_values(text, ["a"], {"x": "new"}, PATH)

    assert edited == f'[a]\n{BEGIN}#|   x = "old"\n  x = "new"\n{END}  y = 1\n'


def test_a_value_that_is_right_is_left_alone() -> None:
    text = '[a]\n  x = "new"\n'
    assert with_values(text, ["a"], {"x": "new"}, PATH) == text


@pytest.mark.parametrize(
    "text",
    [
        'a = { x = "old" }\n',  # a table within a line
        'a.x = "old"\n',
        "[[a]]\n  x = 1\n",
        "[a]\n'x' = 1\n",  # a key that is written otherwise
    ],
)
def test_what_cannot_be_edited_for_sure_is_refused_with_the_lines_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be added to.*by hand:\n\[a\]\n  x = \"new\""):
        with_values(text, ["a"], {"x": "new"}, PATH)


def test_a_block_without_an_end_is_left_for_somebody_to_look_at() -> None:
    text = f"[a]\n{BEGIN}  x = 1\n"
    assert not marked(text.encode())
    assert without_blocks(text) == text
    assert not marked(None)
