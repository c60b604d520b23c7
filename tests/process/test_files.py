"""Files that are whole after a power cut: the order of the calls is what makes them so."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pdist.errors import ConfigError
from p2pdist.process.files import Replacement, own_database, state_directory, write_whole


def log_of_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches the disk from here on, in order."""
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def on_fsync(fd: int) -> None:
        directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        calls.append("sync the directory" if directory else f"sync {os.fstat(fd).st_size} bytes")
        fsync(fd)

    def on_replace(path: Path, target: Path) -> Path:
        calls.append(f"name it {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", on_fsync)
    monkeypatch.setattr(Path, "replace", on_replace)
    return calls


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = log_of_calls(monkeypatch)
    write_whole(tmp_path / "host_id", b"12345")

    assert calls == ["sync 5 bytes", "name it host_id", "sync the directory"]
    assert (tmp_path / "host_id").read_bytes() == b"12345"


def test_what_may_be_lost_spares_the_second_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = log_of_calls(monkeypatch)
    write_whole(tmp_path / "manifest", b"12345", durable=False)

    assert calls == ["sync 5 bytes", "name it manifest"]


def test_a_directory_that_cannot_be_synced_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def refuse_directories(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "no fsync of directories here")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", refuse_directories)
    write_whole(tmp_path / "file", b"1")
    assert os.listdir(tmp_path) == ["file"]


def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="no"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_not_committed_never_was(tmp_path: Path) -> None:
    with Replacement(tmp_path / "file") as scratch:
        scratch.write(b"half")
    assert not os.listdir(tmp_path)


def test_what_must_not_be_replaced_is_not(tmp_path: Path) -> None:
    path = tmp_path / "proxy.key"
    write_whole(path, b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_whole(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["proxy.key"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_files_are_ours_alone_unless_they_are_for_all(tmp_path: Path, mode: int) -> None:
    write_whole(tmp_path / "file", b"1", mode=mode)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"precious")
    path.symlink_to(victim)
    write_whole(path, b"ours")
    assert victim.read_bytes() == b"precious"
    assert not path.is_symlink()


def open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def link_elsewhere(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    path.symlink_to(path.parent / "elsewhere")


def another_owner(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, 12345, -1)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (open_to_all, "written by others"),
        (link_elsewhere, "symbolic links"),
        pytest.param(
            another_owner,
            "another user",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
        ),
    ],
)
def test_state_lies_in_directories_of_ours_alone(
    tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    path = tmp_path / "tracker"
    make(path)
    with pytest.raises(ConfigError, match=why):
        state_directory(path)


def test_a_start_clears_away_what_a_kill_left(tmp_path: Path) -> None:
    path = state_directory(tmp_path / "state" / "proxy")
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    (path / "links.v2.zst.0123abcd.new").write_bytes(b"half")
    (path / "links.v2.zst").write_bytes(b"whole")
    state_directory(path)
    assert os.listdir(path) == ["links.v2.zst"]


@pytest.mark.parametrize("tail", ["", "-wal", "-shm", "-journal"])
def test_a_link_beside_a_database_is_refused(tmp_path: Path, tail: str) -> None:
    (tmp_path / f"jobs.db{tail}").symlink_to(tmp_path / "victim")

    with pytest.raises(OSError, match="no place for a database"):
        own_database(tmp_path / "jobs.db")

    assert not os.path.lexists(tmp_path / "victim")


def test_a_database_is_ours_alone_to_read(tmp_path: Path) -> None:
    (tmp_path / "old.db").touch(0o644)
    for name in ("old.db", "new.db"):
        own_database(tmp_path / name)
        connection = sqlite3.connect(tmp_path / name)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
        modes = {path.stat().st_mode & 0o777 for path in tmp_path.glob(f"{name}*")}
        connection.close()

        assert modes == {0o600}
