"""A mount whose processes are killed, and content that does not come."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from p2pdist.streaming.fuse.mounting import FuseMount
from tests.e2e.harness.processes import wait_until
from tests.e2e.streaming import trees
from tests.e2e.streaming.conftest import MountTree
from tests.faults.records import recorded

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

KILLS: Final = 3
STALL_S_MAX: Final = 0.5
HANGS_S: Final = 10.0
"""More than any load of the machine explains; what is promised is judged by `make faults`."""
ENDS_S: Final = 20.0


def worker_of(mounted: FuseMount) -> int | None:
    """The pid of its worker; None between two."""
    pid = mounted.holder_pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def kill_worker(mounted: FuseMount) -> None:
    """Kill it, and return when the next one is there."""
    killed = worker_of(mounted)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: worker_of(mounted) not in (None, killed), "worker after the killed one")


def read_cold(path: Path) -> bytes:
    """Read it, and leave nothing of it in the page cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        content = os.read(fd, 1 << 20)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    return content


def read_all_while(root: Path, killing: threading.Thread) -> float:
    """Read every file, again and again, until the killing is over; the longest read, in s."""
    longest_s = 0.0
    killing.start()
    rounds = 0
    while killing.is_alive() or rounds == 0:
        rounds += 1
        for number in range(trees.SMALL_FILES):
            began_s = time.monotonic()
            content = read_cold(root / f"d{number - number % 100}" / f"f{number}")
            longest_s = max(longest_s, time.monotonic() - began_s)
            assert content == trees.small_file(number)
    killing.join()
    return longest_s


@pytest.mark.faults
def test_a_killed_worker_is_a_moment_of_waiting(mount_tree: MountTree) -> None:
    with recorded(92, "the worker of a mount is killed", "while 7,000 files are read") as record:
        mounted = mount_tree("many_files")

        def kill_in_turn() -> None:
            for _ in range(KILLS):
                time.sleep(0.5)  # of reading, between two kills
                kill_worker(mounted)

        killing = threading.Thread(target=kill_in_turn, daemon=True)
        longest_s = read_all_while(mounted.path, killing)

        print(f"longest of all reads during {KILLS} kills: {longest_s:.3f} s")
        record.took("longest read", longest_s, at_most_s=STALL_S_MAX)
        record.outcome = f"{KILLS} x kill -9: every file right, no error"
        assert longest_s < HANGS_S
        assert mounted.alive()


@pytest.mark.faults
def test_a_read_that_a_killed_worker_had_taken_is_answered(mount_tree: MountTree) -> None:
    with recorded(92, "the worker of a mount is killed", "with reads that it had taken") as record:
        mounted = mount_tree("late")
        with readers(mounted.path / "late", count=8) as waiting:
            for reader in waiting:
                wait_blocked(reader)

            kill_worker(mounted)
            began_s = time.monotonic()
            told = [reader.communicate(timeout=ENDS_S)[0] for reader in waiting]

            record.took("answers", time.monotonic() - began_s, at_most_s=STALL_S_MAX)
        assert told == [trees.LATE] * 8
        record.outcome = "answered by the next worker, no error"


@pytest.mark.faults
def test_with_its_holder_a_mount_ends_and_nothing_hangs(mount_tree: MountTree) -> None:
    with recorded(92, "the worker of a mount is killed", "and its holder too") as record:
        mounted = mount_tree("failing")
        worker = worker_of(mounted)
        with readers(mounted.path / "not-coming-0") as (reader,):
            wait_blocked(reader)

            os.kill(mounted.holder_pid, signal.SIGKILL)

            assert reader.wait(ENDS_S) != 0
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            os.listdir(mounted.path)
        assert not Path(f"/proc/{worker}").exists() or "Z" in state(worker)

        again = mount_tree("many_files", mounted.path)
        assert read_cold(again.path / "d0" / "f1") == trees.small_file(1)
        record.outcome = "readers get an error; the next mount clears the old one away"


def test_what_cannot_be_had_is_an_error_and_never_zeros(mount_tree: MountTree) -> None:
    root = mount_tree("failing").path

    for name in ("unavailable", "cut-short", "wrong"):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            (root / name).read_bytes()
    assert (root / "good").read_bytes() == b"good"


def test_reads_that_wait_hold_up_nobody_else(mount_tree: MountTree) -> None:
    mounted = mount_tree("failing")
    waiting = [mounted.path / f"not-coming-{number}" for number in range(30)]
    with readers(*waiting) as blocked:
        for reader in blocked:
            wait_blocked(reader)

        assert (mounted.path / "good").read_bytes() == b"good"
        assert os.stat(mounted.path / "unavailable").st_size == 100_000
        assert not (mounted.path / "nothing").exists()

        blocked[0].kill()
        assert blocked[0].wait(ENDS_S) == -signal.SIGKILL, "a reader can be killed while it waits"
        assert blocked[1].poll() is None

        mounted.stop()
        assert all(reader.wait(ENDS_S) != 0 for reader in blocked), "the end of the mount is theirs"


@contextmanager
def readers(*paths: Path, count: int = 1) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A `cat` of each path, `count` times."""
    started = [
        subprocess.Popen(["cat", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for path in paths
        for _ in range(count)
    ]
    try:
        yield started
    finally:
        for reader in started:
            reader.kill()
            reader.communicate()


def state(pid: int | None) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def wait_blocked(reader: subprocess.Popen[bytes]) -> None:
    """Until it waits for content, as only a reader of a file system does."""
    wait_until(lambda: state(reader.pid) == "D", "reader that waits")
