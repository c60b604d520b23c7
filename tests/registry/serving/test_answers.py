from __future__ import annotations

import base64
import json

import pytest

from p2pdist.errors import RegistryError
from p2pdist.model.ids import digest_of
from p2pdist.oci.routes import ReferrersRoute, TagsRoute
from p2pdist.registry.ports import Manifest, TagPage
from p2pdist.registry.serving.answers import (
    error_answer,
    etag_matches,
    manifest_answer,
    referrers_answer,
    tags_answer,
)

DIGEST = digest_of(b"{}")


@pytest.mark.parametrize(
    ("values", "matches"),
    [
        ([], False),
        (['"a"'], True),
        (['W/"a"'], True),
        (['"b", "a"'], True),
        (['"b"', '"a"'], True),
        (["*"], True),
        (["a"], False),
        (['"b"'], False),
        ([""], False),
    ],
)
def test_if_none_match(values: list[str], matches: bool) -> None:
    assert etag_matches(values, '"a"') is matches


def test_a_signed_statement_travels_as_base64() -> None:
    answer = manifest_answer(Manifest(DIGEST, "a/b", b"{}", statement=b"\0\xff"), {}, fixed=False)
    assert base64.b64decode(answer.headers["P2pdist-Statement"]) == b"\0\xff"


def test_a_fresh_manifest_has_neither_warning_nor_statement() -> None:
    answer = manifest_answer(Manifest(DIGEST, "a/b", b"{}"), {}, fixed=False)
    assert not {"Warning", "P2pdist-Statement"} & set(answer.headers)


def test_a_stale_manifest_says_why() -> None:
    stale = Manifest(DIGEST, "a/b", b"{}", stale="upstream down since 10:00")
    answer = manifest_answer(stale, {}, fixed=False)
    assert answer.headers["Warning"] == '299 - "upstream down since 10:00"'


def test_a_warning_cannot_break_out_of_its_header() -> None:
    stale = Manifest(DIGEST, "a/b", b"{}", stale='x"\r\nX-Evil: 1\\é' + "y" * 5000)
    warning = manifest_answer(stale, {}, fixed=False).headers["Warning"]
    assert warning.startswith('299 - "x???X-Evil: 1??y')
    assert len(warning) < 4096


def test_the_last_page_has_no_link() -> None:
    answer = tags_answer(TagsRoute("a", 1, "n=1"), TagPage(["1"]), {})
    assert "Link" not in answer.headers
    assert json.loads(answer.body or b"") == {"name": "a", "tags": ["1"]}  # type: ignore[arg-type]  # bytes, as it was given


def test_the_next_page_is_asked_for_by_the_same_name() -> None:
    route = TagsRoute("r.test:5000/a", None, "")
    page = TagPage(["1", "2"], "next_page=gAAA%3D=&n=2")

    named = tags_answer(route, page, {"OCI-Namespace": "r.test:5000"}).headers["Link"]
    plain = tags_answer(route, page, {}).headers["Link"]

    path = "/v2/r.test:5000/a/tags/list"
    assert named == f'<{path}?next_page=gAAA%3D=&n=2&ns=r.test%3A5000>; rel="next"'
    assert plain == f'<{path}?next_page=gAAA%3D=&n=2>; rel="next"'


def test_an_unfiltered_referrers_answer_claims_no_filter() -> None:
    answer = referrers_answer(ReferrersRoute("a", DIGEST, None), Manifest(DIGEST, "a/b", b""), {})
    assert "OCI-Filters-Applied" not in answer.headers


def test_an_error_is_never_a_challenge() -> None:
    answer = error_answer(RegistryError(401, "UNAUTHORIZED", "no"), {})
    assert answer.status == 401
    assert "WWW-Authenticate" not in answer.headers


def test_the_status_line_says_what_clients_print() -> None:
    error = RegistryError(502, "MANIFEST_UNKNOWN", "r.test cannot be reached: is r.test up?")

    assert error_answer(error, {}).reason == "Bad Gateway: r.test cannot be reached: is r.test up?"


def test_nothing_breaks_out_of_the_status_line() -> None:
    error = RegistryError(502, "NAME_UNKNOWN", "no\r\nX-Evil: 1\x1b[2J\u2028" + "x" * 1000)

    reason = error_answer(error, {}).reason

    assert reason is not None
    assert reason.startswith("Bad Gateway: no??X-Evil: 1?[2J?xxx")
    assert len(reason) <= 300


@pytest.mark.parametrize("status", [400, 404, 405, 416])
def test_what_a_client_said_is_not_in_the_status_line(status: int) -> None:
    error = RegistryError(status, "UNSUPPORTED", "no such thing: evil")

    assert "evil" not in (error_answer(error, {}).reason or "")
