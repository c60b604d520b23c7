"""Tag lists: what is no tag is left out, what is no list is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.reference import valid_tag
from p2pdist.oci.tag_list import parse_tag_list


def test_tags_keep_their_order_without_what_is_none() -> None:
    body = json.dumps({"name": "a", "tags": ["b", "../x", "", "a", "a b", "1"]}).encode()

    assert parse_tag_list(body) == ["b", "a", "1"]


@pytest.mark.parametrize("body", [b'{"tags":null}', b'{"tags":[]}', b"{}"])
def test_a_repository_without_tags_has_an_empty_list(body: bytes) -> None:
    assert parse_tag_list(body) == []


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"tags":"a"}', b'{"tags":[1]}', b'{"tags":["\xff"]}',
             b'{"x":' + b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_tag_list_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="none"):
        parse_tag_list(body)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_tags_or_refused(body: bytes) -> None:
    try:
        tags = parse_tag_list(body)
    except ValueError:
        return
    assert all(map(valid_tag, tags))
