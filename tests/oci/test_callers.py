"""Who asks, by what came with a request, and what a registry wants to see of it."""

from __future__ import annotations

import base64

import pytest

from p2pdist.oci.auth import parse_challenges
from p2pdist.oci.callers import NOBODY, Caller, challenges_for, read_caller


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "header",
    ["Bearer abc.def-ghi_~+/==", "bearer abc", basic("user:pass:word"), basic("user:")],
)
def test_a_token_and_an_account_are_callers(header: str) -> None:
    caller = read_caller([header])

    assert caller != NOBODY
    assert caller.authorization.split(" ")[1] == header.split(" ")[1]


def test_an_account_is_what_basic_says() -> None:
    account = read_caller([basic("user:pass:word")]).account

    assert account is not None
    assert (account.username, account.password) == ("user", "pass:word")
    assert read_caller(["Bearer abc"]).account is None
    assert NOBODY.account is None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Basic Og=="],
        ["Basic !"],
        ["Basic " + base64.b64encode(b"no colon").decode()],
        ["Basic /w=="],
        ["Digest abc"],
        ["Bearer"],
        ["Bearer a b"],
        ["Bearer a\r\nX: y"],
        ["Bearer " + "a" * 9000],
        ["Bearer a", "Bearer b"],
    ],
)
def test_everything_else_is_nobody(headers: list[str]) -> None:
    assert read_caller(headers) is NOBODY


def test_no_text_of_a_caller_shows_its_credentials() -> None:
    caller = Caller("Bearer secret")

    assert "secret" not in f"{caller} {caller!r} {[caller]}"


def told(text: str) -> list[str]:
    return challenges_for("team/app", parse_challenges([text]))


def test_a_challenge_is_for_the_right_to_pull_the_repository_alone() -> None:
    wish = 'Bearer realm="https://r.test/token",service="r",scope="registry:catalog:* a:b:push"'

    assert told(wish) == [
        'Bearer realm="https://r.test/token",service="r",scope="repository:team/app:pull"'
    ]
    assert told('Bearer realm="https://r.test/token"') == [
        'Bearer realm="https://r.test/token",scope="repository:team/app:pull"'
    ]
    assert told('Basic realm="house"') == ['Basic realm="house"']
    assert told("Basic") == ['Basic realm="registry"']


@pytest.mark.parametrize(
    "text",
    [
        'Bearer service="r"',
        'Bearer realm="a\\"b"',
        'Bearer realm="\x7f"',
        f'Bearer realm="{"r" * 2000}"',
        'Negotiate realm="r"',
    ],
)
def test_what_cannot_be_passed_on_as_it_is_is_left_out(text: str) -> None:
    assert told(text) == []


def test_no_name_breaks_out_of_a_challenge() -> None:
    assert challenges_for('a",x="', parse_challenges(['Basic realm="r"'])) == []
