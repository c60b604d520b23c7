"""Accounts in Docker's `config.json` and containers' `auth.json`, written as their tools do."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.credential_files import (
    HUB_KEY,
    REFRESH_USER,
    Account,
    Helper,
    account_in,
    account_told,
    helper,
)

HOST = "registry.corp:5443"
AUTH = base64.b64encode(b"robot:pass:word").decode()
ACCOUNT = Account("robot", "pass:word")


def written(**file: Any) -> bytes:
    return json.dumps(file).encode()


@pytest.mark.parametrize(
    "key", [HOST, f"https://{HOST}", f"https://{HOST}/v2/", f"http://{HOST}/v1/", HOST.upper()]
)
def test_an_account_is_found_however_its_host_is_written(key: str) -> None:
    assert account_in(written(auths={key: {"auth": AUTH}}), HOST) == ACCOUNT


@pytest.mark.parametrize("host", ["docker.io", "registry-1.docker.io", "index.docker.io"])
@pytest.mark.parametrize("key", [HUB_KEY, "docker.io", "index.docker.io"])
def test_docker_hub_has_several_names(host: str, key: str) -> None:
    assert account_in(written(auths={key: {"auth": AUTH}}), host) == ACCOUNT


@pytest.mark.parametrize(
    "key", ["registry.corp", "registry.corp:5444", f"{HOST}/team", f"evil.test/{HOST}", "corp:5443"]
)
def test_the_account_of_another_place_is_not_taken(key: str) -> None:
    with pytest.raises(ValueError, match=f"has no account for {HOST}"):
        account_in(written(auths={key: {"auth": AUTH}}), HOST)


def test_the_entry_written_exactly_so_comes_first() -> None:
    other = base64.b64encode(b"other:secret").decode()
    file = written(auths={f"https://{HOST}/v1/": {"auth": other}, HOST: {"auth": AUTH}})

    assert account_in(file, HOST) == ACCOUNT


def test_a_refresh_token_goes_by_dockers_word_for_it() -> None:
    file = written(auths={HOST: {"auth": AUTH, "identitytoken": "refresh"}})

    assert account_in(file, HOST) == Account(REFRESH_USER, "refresh")


def test_user_and_password_may_stand_apart() -> None:
    file = written(auths={HOST: {"username": "robot", "password": "pass:word"}})

    assert account_in(file, HOST) == ACCOUNT


def test_the_helper_of_a_registry_comes_before_the_store_and_the_entry() -> None:
    file = {"auths": {HOST: {"auth": AUTH}}, "credsStore": "pass"}

    assert account_in(written(**file, credHelpers={HOST: "ecr-login"}), HOST) == Helper(
        "ecr-login", HOST
    )
    assert account_in(written(**file, credHelpers={"other.test": "gcr"}), HOST) == Helper(
        "pass", HOST
    )


def test_a_helper_is_asked_for_docker_hub_by_the_name_that_tools_give_it() -> None:
    assert helper("pass", "docker.io") == Helper("pass", HUB_KEY)


@pytest.mark.parametrize("name", ["../../bin/sh", "a b", "", "-x", "a/b", "x" * 65])
def test_a_helper_is_part_of_a_file_name(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be one"):
        helper(name, HOST)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({}, "empty entry"),
        ({"auth": ""}, "empty entry"),
        ({"username": "robot"}, "empty entry"),
        ({"auth": "%%%"}, "is no account"),
        ({"auth": base64.b64encode(b"nocolon").decode()}, "is no account"),
        ({"auth": base64.b64encode(b":nouser").decode()}, "is no account"),
        ({"auth": base64.b64encode(b"\xff:x").decode()}, "is no account"),
    ],
)
def test_an_entry_without_an_account_is_said(entry: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        account_in(written(auths={HOST: entry}), HOST)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"auths": 5}', b"\xff\xfe"])
def test_what_is_no_such_file_is_said_and_not_quoted(body: bytes) -> None:
    with pytest.raises(ValueError, match="no file of registry accounts"):
        account_in(body, HOST)


def test_fields_that_nobody_reads_may_be_anything() -> None:
    file = written(
        auths={HOST: {"auth": AUTH, "email": None}}, HttpHeaders=5, detachKeys=[], plugins=None
    )

    assert account_in(file, HOST) == ACCOUNT


def test_a_helper_answers_with_an_account() -> None:
    told = b'{"ServerURL":"https://registry.corp","Username":"AWS","Secret":"token"}\n'

    assert account_told(told) == Account("AWS", "token")


@pytest.mark.parametrize("told", [b"", b"secret", b"{}", b'{"Username":"AWS"}', b'{"Secret":"s"}'])
def test_a_helper_that_says_anything_else_is_not_quoted(told: bytes) -> None:
    with pytest.raises(ValueError, match="account") as caught:
        account_told(told)

    assert "secret" not in str(caught.value)


@given(st.binary(max_size=200), st.text(max_size=20))
def test_any_file_gives_an_account_or_a_value_error(body: bytes, host: str) -> None:
    with contextlib.suppress(ValueError):
        account_in(body, host)
