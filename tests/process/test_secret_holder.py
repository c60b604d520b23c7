"""The cluster secrets a daemon believes: another file is taken up, a bad one is said and left."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from p2pdist.errors import ConfigError
from p2pdist.model.health import Reason
from p2pdist.process import secret_holder as module
from p2pdist.process.identity import read_secrets
from p2pdist.process.secret_holder import (
    SecretHolder,
    secret_conditions,
    secret_holder,
    secret_samples,
    secret_status,
)
from p2pdist.settings import Cluster, Settings
from tests.fakes.secrets import only

OLD, NEW = b"the old secret of the cluster", b"the new secret of the cluster"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.secret"
    put(path, OLD)
    return path


def put(path: Path, *lines: bytes, mode: int = 0o600) -> None:
    """As tools do it: another file in its place."""
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(b"\n".join(lines) + b"\n")
    fresh.chmod(mode)
    fresh.replace(path)


def written(path: Path, data: bytes, mode: str) -> None:
    with path.open(mode) as file:
        file.write(data)


def held(path: Path) -> SecretHolder:
    return secret_holder(Settings(cluster=Cluster(path)))


async def test_another_file_is_taken_up_at_the_second_look(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    holder, cut = held(path), list[str]()

    async def told() -> None:
        cut.append(str(holder.believed()))

    holder.on_taken.append(told)
    await holder.look()
    put(path, NEW, OLD)
    await holder.look()
    assert holder.believed() == only(OLD)

    with caplog.at_level(logging.INFO):
        await holder.look()
        await holder.look()

    assert holder.believed() == only(NEW, OLD)
    assert cut == [str(only(NEW, OLD))]
    assert caplog.text.count("secret.taken") == 1
    assert NEW.decode() not in caplog.text
    values = {(s.name, *s.labels.values()): s.value for s in secret_samples(holder)}
    new, old = only(NEW, OLD).fingerprints
    assert values == {
        ("p2pdist_cluster_secret", "first", new): 1,
        ("p2pdist_cluster_secret", "second", old): 1,
        ("p2pdist_cluster_secret_taken_total",): 1,
    }
    assert secret_status(holder) == {"cluster_secret": {"fingerprints": [new, old], "trouble": ""}}


async def test_a_file_that_is_being_written_is_not_taken_up(path: Path) -> None:
    """The first half of a secret is one of enough bytes."""
    holder = held(path)
    written(path, NEW[:16], "wb")
    await holder.look()
    written(path, NEW[16:], "ab")
    await holder.look()
    assert holder.believed() == only(OLD)

    await holder.look()

    assert holder.believed() == only(NEW)


async def test_a_file_that_changes_under_our_eyes_is_looked_at_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, read = held(path), read_secrets

    def changed_behind(of: Path | None) -> object:
        found = read(of)
        put(path, NEW)
        return found

    put(path, OLD, NEW)
    monkeypatch.setattr(module, "read_secrets", changed_behind)
    await holder.look()
    await holder.look()
    await holder.look()
    assert holder.believed() == only(OLD)
    assert not holder.trouble

    monkeypatch.undo()
    await holder.look()
    await holder.look()
    assert holder.believed() == only(NEW)


def short(path: Path) -> None:
    put(path, b"short")


def three(path: Path) -> None:
    put(path, OLD, NEW, NEW + OLD)


def open_to_all(path: Path) -> None:
    put(path, NEW, mode=0o644)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (short, "at least 16 bytes"),
        (three, "3 secrets"),
        (open_to_all, "may be read by others"),
        (empty, "lost its bytes"),
        (gone, "No such file"),
    ],
)
async def test_one_that_is_no_good_is_said_once_and_the_old_one_stays(
    path: Path, caplog: pytest.LogCaptureFixture, spoil: object, says: str
) -> None:
    holder = held(path)
    assert not secret_conditions(holder)
    assert callable(spoil)
    spoil(path)

    for _ in range(4):
        await holder.look()

    assert holder.believed() == only(OLD)
    assert caplog.text.count("secret.unread") == 1
    assert says in holder.trouble
    assert says in secret_conditions(holder)[Reason.SECRET_UNREAD]
    put(path, OLD)
    await holder.look()
    await holder.look()
    assert holder.trouble == ""
    assert holder.taken_total == 0


async def test_a_file_that_was_only_touched_is_no_news(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    holder = held(path)
    os.utime(path, (1, 1))

    with caplog.at_level(logging.INFO):
        for _ in range(3):
            await holder.look()

    assert "secret" not in caplog.text
    assert holder.taken_total == 0


def test_a_daemon_does_not_start_without_one(path: Path) -> None:
    with pytest.raises(ConfigError, match="not set"):
        secret_holder(Settings())
    put(path, OLD, OLD)
    with pytest.raises(ConfigError, match="twice"):
        held(path)
