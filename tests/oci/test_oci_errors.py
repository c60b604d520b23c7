from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.errors import ERROR_CODES, error_body


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
