from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.errors import ERROR_CODES, error_body, error_detail, error_text


def test_the_shape_of_the_specification() -> None:
    body = json.loads(error_body("BLOB_UNKNOWN", "gone", "here"))
    assert body == {"errors": [{"code": "BLOB_UNKNOWN", "message": "gone", "detail": "here"}]}


def test_a_code_of_nobody_becomes_unsupported() -> None:
    assert json.loads(error_body("UNAVAILABLE", "x"))["errors"][0]["code"] == "UNSUPPORTED"


@given(st.text(alphabet=st.characters(), max_size=2000))
def test_any_text_gives_a_short_printable_body(text: str) -> None:
    (error,) = json.loads(error_body(text, text, text))["errors"]
    assert error["code"] in ERROR_CODES
    assert error["message"].isprintable()
    assert len(error["detail"]) <= 512


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (error_body("NAME_UNKNOWN", "no such name"), "NAME_UNKNOWN: no such name"),
        (b'{"errors":[{"code":"DENIED"},{"code":"X","message":"y"}]}', "DENIED; X: y"),
        (b"<html>\n  <b>Bad gateway</b>", "<html> <b>Bad gateway</b>"),
        (b'{"errors": 7}', '{"errors": 7}'),
        (b"", ""),
    ],
)
def test_what_a_body_tells_people(body: bytes, text: str) -> None:
    assert error_text(body) == text


@given(st.binary(max_size=2000) | st.text(max_size=900).map(lambda t: error_body("DENIED", t)))
def test_whatever_comes_is_one_short_printable_line(body: bytes) -> None:
    text = error_text(body)

    assert len(text) <= 512
    assert all(c.isprintable() for c in text)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (error_body("DENIED", "x", "no answer"), "no answer"),
        (b'{"errors":[{"code":"X"},{"code":"Y","detail":"there"}]}', "there"),
        (b'{"errors":[{"code":"X","detail":{"a":1}}]}', ""),
        (error_body("DENIED", "x"), ""),
        (b"no JSON", ""),
    ],
)
def test_a_detail_is_a_text(body: bytes, detail: str) -> None:
    assert error_detail(body) == detail
