"""Which files are open: what is used stays, what is not goes, and nothing unsynced goes unsaid."""

from __future__ import annotations

import errno
import os
import resource
import threading
from pathlib import Path

import pytest

from p2pdist.store.open_files import OPEN_MAX, OPEN_MIN, OpenFiles, StoredFile, open_files_allowed


def stored(directory: Path, *names: str) -> list[StoredFile]:
    for name in names:
        (directory / name).write_bytes(name.encode())
    return [StoredFile(directory / name, os.O_RDWR) for name in names]


def use(files: OpenFiles, file: StoredFile) -> bytes:
    with files.borrow(file) as fd:
        return os.pread(fd, 100, 0)


def is_open(file: StoredFile) -> bool:
    return file.fd >= 0


def write(files: OpenFiles, file: StoredFile, data: bytes) -> None:
    with files.borrow(file) as fd:
        os.pwrite(fd, data, 0)
        file.dirty = True


def test_what_was_used_longest_ago_is_closed(tmp_path: Path) -> None:
    files, (a, b, c) = OpenFiles(2), stored(tmp_path, "a", "b", "c")
    for file in (a, b, a, c):
        assert use(files, file) == file.path.name.encode()

    assert [is_open(file) for file in (a, b, c)] == [True, False, True]
    assert (files.open_count, files.opened_total) == (2, 3)


def test_a_file_in_use_is_opened_once_and_never_closed(tmp_path: Path) -> None:
    files, (a, b) = OpenFiles(1), stored(tmp_path, "a", "b")
    with files.borrow(a) as fd, files.borrow(a) as again:
        assert fd == again
        use(files, b)
        files.let_go()
        assert os.pread(fd, 1, 0) == b"a"

    assert is_open(a)
    assert files.opened_total == 2


def test_what_is_kept_makes_no_room_until_it_is_not_kept_any_more(tmp_path: Path) -> None:
    files, (a, b, c) = OpenFiles(1), stored(tmp_path, "a", "b", "c")
    files.keep([a, b], kept=True)
    for file in (a, b, c):
        use(files, file)
    files.let_go()
    assert [is_open(file) for file in (a, b, c)] == [True, True, False]

    files.keep([a, b], kept=False)
    assert files.open_count == 1
    files.let_go()
    assert files.open_count == 0


def test_what_was_open_before_may_be_kept(tmp_path: Path) -> None:
    files, (a,) = OpenFiles(9), stored(tmp_path, "a")
    use(files, a)
    files.keep([a], kept=True)
    files.let_go()

    assert is_open(a)
    files.close(a)
    assert files.open_count == 0


def test_a_file_that_has_ended_stays_for_who_uses_it_and_opens_for_nobody(tmp_path: Path) -> None:
    files, (a,) = OpenFiles(9), stored(tmp_path, "a")
    borrowed = files.borrow(a)
    files.end(a)
    assert os.pread(borrowed.fileno, 1, 0) == b"a"

    borrowed.close()
    borrowed.close()  # once is enough, twice is no harm
    assert not is_open(a)
    assert files.open_count == 0
    with pytest.raises(FileNotFoundError):
        files.borrow(a)


def test_what_is_not_synced_is_synced_before_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    files, (a, b) = OpenFiles(1), stored(tmp_path, "a", "b")
    write(files, a, b"x")
    fd = a.fd
    use(files, b)

    assert synced == [fd]
    assert not is_open(a)


def test_what_many_used_at_once_does_not_stay_open(tmp_path: Path) -> None:
    files, all_of_them = OpenFiles(1), stored(tmp_path, "a", "b", "c")
    borrowed = [files.borrow(file) for file in all_of_them]
    assert files.open_count == 3
    for one in borrowed:
        one.close()

    assert [is_open(file) for file in all_of_them] == [False, False, True]


def test_the_event_loop_waits_for_no_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    files, (a, b, c) = OpenFiles(1), stored(tmp_path, "a", "b", "c")
    write(files, a, b"x")
    on_the_loop = files.borrow(b, may_flush=False)
    assert (synced, files.open_count) == ([], 2)

    on_the_loop.close()  # what can be closed without, is
    assert [is_open(file) for file in (a, b)] == [True, False]
    use(files, c)  # in a thread of the disk
    assert len(synced) == 1
    assert [is_open(file) for file in (a, b, c)] == [False, False, True]


def test_a_sync_that_fails_on_closing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says it once, to who has the file open."""
    told = []
    (tmp_path / "a").write_bytes(b"a")
    a = StoredFile(tmp_path / "a", os.O_RDWR, lambda: told.append("a"))
    files, (b,) = OpenFiles(1), stored(tmp_path, "b")
    write(files, a, b"x")

    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "fsync", refuse)
    use(files, b)

    assert told == ["a"]
    assert not is_open(a)


def test_a_file_is_opened_at_the_cost_of_idle_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also below its limit: sockets may have taken all descriptors."""
    files, (a, b) = OpenFiles(9), stored(tmp_path, "a", "b")
    use(files, a)
    real = os.open

    def full_while_a_is_open(path: Path, flags: int, mode: int = 0o777) -> int:
        if is_open(a):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", full_while_a_is_open)
    assert use(files, b) == b"b"


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"secret")
    (tmp_path / "a").symlink_to("victim")
    with pytest.raises(OSError, match="symbolic"):
        OpenFiles(9).borrow(StoredFile(tmp_path / "a", os.O_RDWR))


def test_threads_share_one_descriptor_and_none_loses_it(tmp_path: Path) -> None:
    """Eight threads over more files than may be open: every read finds its own file."""
    names = [f"file {i}" for i in range(6)]
    files, all_of_them = OpenFiles(2), stored(tmp_path, *names)
    wrong: list[bytes] = []

    def read_all(turn: int) -> None:
        for i in range(600):
            file = all_of_them[(i * (turn + 1)) % len(all_of_them)]
            if (got := use(files, file)) != file.path.name.encode():
                wrong.append(got)

    threads = [threading.Thread(target=read_all, args=(turn,)) for turn in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    use(files, all_of_them[0])
    files.let_go()
    assert files.open_count == 0
    assert not any(map(is_open, all_of_them))


@pytest.mark.parametrize(
    ("nofile", "allowed"),
    [(256, OPEN_MIN), (1024, 128), (1 << 20, OPEN_MAX), (resource.RLIM_INFINITY, OPEN_MAX)],
)
def test_the_limit_is_a_share_of_the_descriptors(
    monkeypatch: pytest.MonkeyPatch, nofile: int, allowed: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (nofile, nofile))
    assert open_files_allowed() == allowed
