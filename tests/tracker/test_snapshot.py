from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from p2pdist.model.control import Announce, Handout, Join
from p2pdist.model.members import Member
from p2pdist.model.statements import Keyring
from p2pdist.tracker import snapshot
from p2pdist.tracker.core.orders import Send
from p2pdist.tracker.core.state import HostConnected, MessageReceived, TrackerCore
from tests.tracker.hosts import key, member, seed


def core() -> TrackerCore:
    return TrackerCore(
        epoch="e",
        dc="dc1",
        epoch_s=0.0,
        epoch_unix_s=0.0,
        keyring=Keyring([]),
        rng=Random(1),
        token=Random(1).randbytes,
    )


def with_holders(count: int) -> TrackerCore:
    tracker = core()
    for i in range(count):
        tracker.handle(HostConnected(i, member(i)), 0.0)
        tracker.handle(MessageReceived(i, Announce([seed(key())])), 0.0)
    return tracker


def named(tracker: TrackerCore) -> list[Member]:
    tracker.handle(HostConnected(999, member(999)), 0.0)
    (order,) = tracker.handle(MessageReceived(999, Join(1, key(), member=False)), 0.0)
    assert isinstance(order, Send)
    assert isinstance(order.message, Handout)
    return order.message.members


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def test_holders_come_back_from_a_snapshot(tmp_path: Path) -> None:
    path, after = tmp_path / snapshot.FILE_NAME, core()
    assert await snapshot.save(with_holders(2), path)

    assert await snapshot.load(after, path, 0.0) == 2

    assert sorted(m.host_id for m in named(after)) == [member(0).host_id, member(1).host_id]


async def test_a_snapshot_of_many_slices_is_whole(tmp_path: Path) -> None:
    path, count = tmp_path / snapshot.FILE_NAME, 3 * snapshot.HOSTS_PER_SLICE + 1
    await snapshot.save(with_holders(count), path)

    assert await snapshot.load(core(), path, 0.0) == count


async def test_without_a_snapshot_the_tracker_starts_empty(tmp_path: Path) -> None:
    assert await snapshot.load(core(), tmp_path / "none", 0.0) == 0


@pytest.mark.parametrize("keep_bytes", [0, 1, 20, -1])
async def test_a_cut_snapshot_gives_what_is_whole_and_raises_nothing(
    tmp_path: Path, keep_bytes: int
) -> None:
    path = tmp_path / snapshot.FILE_NAME
    await snapshot.save(with_holders(3), path)
    path.write_bytes(path.read_bytes()[:keep_bytes])

    assert await snapshot.load(core(), path, 0.0) <= 3


async def test_a_foreign_file_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / snapshot.FILE_NAME
    path.write_bytes(b"no snapshot at all")

    assert await snapshot.load(core(), path, 0.0) == 0


async def test_a_disk_that_refuses_costs_the_snapshot_alone(tmp_path: Path) -> None:
    (tmp_path / "full").write_bytes(b"no directory")
    assert not await snapshot.save(with_holders(1), tmp_path / "full" / "file")


async def test_a_link_in_the_place_of_a_snapshot_is_not_followed(tmp_path: Path) -> None:
    """Whoever may write the directory must not choose what the tracker overwrites."""
    victim, path = tmp_path / "victim", tmp_path / "snapshot.v1.zst"
    victim.write_bytes(b"precious")
    victim.chmod(0o644)
    for link in (path, path.with_suffix(".tmp")):
        link.symlink_to(victim)

    assert await snapshot.save(with_holders(1), path)

    assert (victim.read_bytes(), modes_in(tmp_path)["victim"]) == (b"precious", 0o644)
    assert await snapshot.load(core(), path, 0.0) == 1


async def test_a_snapshot_has_its_bytes_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls = tmp_path / snapshot.FILE_NAME, []
    fsync, replace = os.fsync, Path.replace

    def on_fsync(fd: int) -> None:
        calls.append("sync")
        fsync(fd)

    def on_replace(scratch: Path, target: Path) -> Path:
        calls.append("name")
        return replace(scratch, target)

    monkeypatch.setattr(os, "fsync", on_fsync)
    monkeypatch.setattr(Path, "replace", on_replace)
    assert await snapshot.save(with_holders(1), path)

    assert calls == ["sync", "name", "sync"]


async def test_the_snapshot_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / snapshot.FILE_NAME
    await snapshot.save(with_holders(1), path)

    assert modes_in(tmp_path) == {snapshot.FILE_NAME: 0o600}
