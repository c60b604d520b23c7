"""What a container runs, and as whom."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.run_config import PATH, RunConfig, User, environment, find_user, run_config

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:100:App:/srv/app:/bin/sh\nbroken\nbad:x:y:1::/:\n"
)
GROUP = b"root:x:0:\nusers:x:100:\nvideo:x:44:other,app\naudio:x:29:app\nbroken:x\n"


def config(**settings: object) -> bytes:
    return json.dumps({"architecture": "amd64", "os": "linux", "config": settings}).encode()


def test_what_an_image_runs() -> None:
    found = run_config(
        config(
            Entrypoint=["/init"],
            Cmd=["a", "b"],
            Env=["A=1", "broken"],
            WorkingDir="/srv",
            User="app",
        )
    )

    assert found == RunConfig(("/init",), ("a", "b"), ("A=1",), "/srv", "app")
    assert found.arguments([]) == ["/init", "a", "b"]
    assert found.arguments(["other"]) == ["/init", "other"]


@pytest.mark.parametrize("body", [b"{}", config(), b'{"config": null}', config(Cmd=None)])
def test_an_image_may_say_nothing_of_it(body: bytes) -> None:
    assert run_config(body) == RunConfig()
    with pytest.raises(ValueError, match="names no command"):
        run_config(body).arguments([])


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"config": 1}', config(Cmd="sh"), config(Env=["A=\0"]), config(User=3)]
)
def test_what_is_no_config_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        run_config(body)


def test_what_is_given_counts_before_the_image_and_that_before_the_usual() -> None:
    assert environment([], []) == [PATH]
    assert environment(["PATH=/x", "A=1"], ["A=2", "B=a=b"]) == ["PATH=/x", "A=2", "B=a=b"]


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0, (), "/root")),
        ("app", User(1000, 100, (44, 29), "/srv/app")),
        ("1000", User(1000, 100, (44, 29), "/srv/app")),
        ("app:video", User(1000, 44, (), "/srv/app")),
        ("app:7", User(1000, 7, (), "/srv/app")),
        ("4294967294:5", User(4294967294, 5)),
        ("12", User(12, 0)),
    ],
)
def test_users_are_those_of_the_image(text: str, user: User) -> None:
    assert find_user(text, PASSWD, GROUP) == user


def test_an_image_without_users_has_root_and_numbers() -> None:
    assert find_user("", b"", b"") == User(0, 0)
    assert find_user("5:6", b"", b"") == User(5, 6)


@pytest.mark.parametrize("text", ["nobody", "bad", "app:none", "4294967296", "-1", "broken", "١"])
def test_a_user_that_is_not_there_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="the image has no"):
        find_user(text, PASSWD, GROUP)


@given(st.text(max_size=40), st.binary(max_size=200), st.binary(max_size=200))
def test_any_files_have_a_user_or_have_none(text: str, passwd: bytes, group: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert find_user(text, passwd, group).uid >= 0
