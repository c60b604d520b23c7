"""The files of a rotation: each step follows from the one before, and is whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from p2pdist.cli.keys import keys
from p2pdist.errors import ConfigError
from p2pdist.process.identity import read_secrets
from p2pdist.process.keys import Step, make_keys, rotate_secret


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_keys(tmp_path).secret_file


def test_three_steps_put_a_fresh_secret_in_the_place_of_the_old_one(path: Path) -> None:
    (old,) = read_secrets(path).each

    added = rotate_secret(path, Step.ADD)
    assert added == read_secrets(path)
    assert added.first == old
    fresh = added.each[1]
    assert len(fresh) == 64

    assert rotate_secret(path, Step.SWAP).each == read_secrets(path).each == (fresh, old)
    assert rotate_secret(path, Step.DROP).each == read_secrets(path).each == (fresh,)


def test_mode_owner_and_links_stay_as_they_are(path: Path, tmp_path: Path) -> None:
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 0, 12345)
    before, link = path.stat(), tmp_path / "link"
    link.symlink_to(path.name)

    rotate_secret(link, Step.ADD)

    after = path.stat()
    assert link.is_symlink()
    assert len(path.read_bytes().splitlines()) == 2
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


@pytest.mark.parametrize(
    ("before", "step", "says"),
    [
        ([Step.ADD], Step.ADD, "two secrets; `swap` and `drop`"),
        ([], Step.SWAP, "begins with `add`"),
        ([], Step.DROP, "begins with `add`"),
    ],
)
def test_a_step_that_is_not_the_next_one_changes_nothing(
    path: Path, before: list[Step], step: Step, says: str
) -> None:
    for done in before:
        rotate_secret(path, done)
    lies = path.read_bytes()

    with pytest.raises(ConfigError, match=says):
        rotate_secret(path, step)

    assert path.read_bytes() == lies


def test_no_line_is_put_to_bytes_that_are_no_text(path: Path) -> None:
    path.write_bytes(bytes(range(32)))

    with pytest.raises(ConfigError, match="no text"):
        rotate_secret(path, Step.ADD)

    assert path.read_bytes() == bytes(range(32))


def test_the_command_says_what_the_file_holds_and_what_is_next(path: Path) -> None:
    run = CliRunner().invoke(
        keys, ["rotate-secret", "add", "--file", str(path)], catch_exceptions=False
    )

    believed, following = run.output.splitlines()
    assert believed == f"{path}: {read_secrets(path)}"
    assert following.endswith("`swap`")
    assert read_secrets(path).first.decode() not in run.output
