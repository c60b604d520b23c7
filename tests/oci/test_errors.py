from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import ErrorReason
from p2pdist.oci.errors import ERROR_CODES, ToldError, error_body, error_text, told_error


def test_the_shape_of_the_specification() -> None:
    body = json.loads(error_body("BLOB_UNKNOWN", "gone", ErrorReason.NO_SOURCE))
    (error,) = body["errors"]
    assert error == {"code": "BLOB_UNKNOWN", "message": "gone", "detail": "no_source"}


def test_a_code_of_nobody_becomes_unsupported() -> None:
    assert json.loads(error_body("UNAVAILABLE", "x"))["errors"][0]["code"] == "UNSUPPORTED"


@given(st.text(alphabet=st.characters(), max_size=2000))
def test_any_text_gives_a_short_printable_body(text: str) -> None:
    (error,) = json.loads(error_body(text, text))["errors"]
    assert error["code"] in ERROR_CODES
    assert error["message"].isprintable()
    assert len(error["message"]) <= 512


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
    "body",
    [
        b'{"errors":[{"code":"X"},{"code":"Y","detail":"there"}]}',
        b'{"errors":[{"code":"X","detail":{"reason":"denied"}}]}',
        b'{"errors":[{"code":"X","detail":null}]}',
        error_body("DENIED", "x"),
        b"no JSON",
    ],
)
def test_a_detail_of_others_is_no_reason(body: bytes) -> None:
    assert told_error(body) is None


@pytest.mark.parametrize("reason", ErrorReason)
def test_a_reason_passes_through_a_body(reason: ErrorReason) -> None:
    told = told_error(error_body("DENIED", "not for you", reason))

    assert told == ToldError("DENIED", "not for you", reason)


def test_what_comes_with_a_reason_is_one_short_printable_line() -> None:
    message = "a\\u001b[2J" + "b" * 2000
    body = f'{{"errors":[{{"code":"X","message":"{message}","detail":"denied"}}]}}'.encode()

    told = told_error(body)

    assert told is not None
    assert told.message.isprintable()
    assert len(told.message) <= 512
