"""Accounts that are read when they are needed: files that change, helpers that run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pdist.errors import UpstreamError
from p2pdist.oci.credential_files import Account, Helper
from p2pdist.registry.reading import credentials
from p2pdist.registry.reading.credentials import (
    Credentials,
    ask_helper,
    find_helper,
    from_auth_file,
    from_password_file,
)

HOST = "registry.corp:5443"


class Told:
    """Counts how often it is asked; says what it is told to."""

    def __init__(self, *accounts: Account | Exception) -> None:
        self.accounts = list(accounts)
        self.asked = 0

    def __call__(self) -> Account:
        self.asked += 1
        account = self.accounts.pop(0) if len(self.accounts) > 1 else self.accounts[0]
        if isinstance(account, Exception):
            raise account
        return account


OLD, NEW = Account("robot", "old"), Account("robot", "new")


async def test_an_account_is_read_once() -> None:
    told = Told(OLD, NEW)
    robot = Credentials(HOST, told)

    assert [await robot.account() for _ in range(3)] == [OLD] * 3
    assert told.asked == 1


async def test_an_account_that_lived_long_enough_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    robot = Credentials(HOST, Told(OLD, NEW))
    await robot.account()
    monkeypatch.setattr(credentials, "LIFE_S", 0.0)

    assert await robot.account() == NEW


async def test_a_rejected_account_is_looked_up_again_but_not_for_every_pull(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told(OLD, NEW)
    robot = Credentials(HOST, told)
    await robot.account()

    assert await robot.account(rejected=OLD) == OLD, "it was read a moment ago"
    monkeypatch.setattr(credentials, "RETRY_S", 0.0)
    assert await robot.account(rejected=OLD) == NEW
    assert await robot.account(rejected=OLD) == NEW, "another one is known by now"
    assert told.asked == 2


GONE = ValueError("/run/secret: No such file or directory")


async def test_what_cannot_be_found_is_no_access_and_is_not_looked_for_at_every_pull(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told(GONE, NEW)
    robot = Credentials(HOST, told)

    for _ in range(3):
        with pytest.raises(
            UpstreamError, match=f"no account for {HOST}: /run/secret: No"
        ) as caught:
            await robot.account()
        assert caught.value.status == 401
    assert told.asked == 1

    monkeypatch.setattr(credentials, "RETRY_S", 0.0)
    assert await robot.account() == NEW


async def test_an_account_whose_file_or_helper_went_is_used_until_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told(OLD, GONE)
    robot = Credentials(HOST, told)
    await robot.account()
    monkeypatch.setattr(credentials, "LIFE_S", 0.0)

    assert [await robot.account() for _ in range(3)] == [OLD] * 3
    assert told.asked == 2, "it failed a moment ago"


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_password_file_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    path = private(tmp_path / "password", "old\n")
    assert from_password_file("robot", path) == OLD
    path.write_text("new\n")
    assert from_password_file("robot", path) == NEW


def test_a_file_of_accounts_is_private_and_named_in_the_error(tmp_path: Path) -> None:
    path = private(tmp_path / "config.json", json.dumps({"auths": {}}))
    with pytest.raises(ValueError, match=rf"config.json has no account for {HOST}"):
        from_auth_file(path, HOST)
    path.chmod(0o604)
    with pytest.raises(ValueError, match="may be read by others; run: chmod 600"):
        from_auth_file(path, HOST)


def program(directory: Path, name: str, text: str) -> None:
    path = directory / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_a_helper_is_asked_by_its_protocol(programs: Path) -> None:
    program(
        programs,
        "told",
        'read host; test "$1" = get && printf \'{"Username":"AWS","Secret":"for %s"}\' "$host"',
    )

    assert ask_helper(Helper("told", HOST)) == Account("AWS", f"for {HOST}")


def test_a_file_leads_to_its_helper(programs: Path, tmp_path: Path) -> None:
    program(programs, "told", """cat >/dev/null; echo '{"Username":"AWS","Secret":"s"}'""")
    path = private(tmp_path / "config.json", json.dumps({"credHelpers": {HOST: "told"}}))

    assert from_auth_file(path, HOST) == Account("AWS", "s")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo credentials not found in native keychain; exit 1", "knows no account for"),
        ("echo SECRET", "did not answer with an account"),
        ("exec head -c 200000 /dev/zero", "did not answer with an account"),
    ],
)
def test_a_helper_that_fails_is_named_and_not_quoted(programs: Path, text: str, why: str) -> None:
    program(programs, "odd", text)

    with pytest.raises(ValueError, match=f"docker-credential-odd {why}") as caught:
        ask_helper(Helper("odd", HOST))
    assert "SECRET" not in str(caught.value)


def test_a_helper_that_hangs_is_given_up(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "HELPER_S", 0.1)
    program(programs, "hung", "exec sleep 600")

    with pytest.raises(ValueError, match=r"did not answer within 0.1 s"):
        ask_helper(Helper("hung", HOST))


def test_a_helper_that_is_not_there_is_missed_at_the_start(programs: Path) -> None:
    assert programs.is_dir()
    for look in (find_helper, ask_helper):
        with pytest.raises(ValueError, match="docker-credential-none is not on the PATH"):
            look(Helper("none", HOST))
