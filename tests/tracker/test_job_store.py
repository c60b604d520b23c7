from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from p2pdist.errors import StoreError
from p2pdist.model.jobs import JobSpec
from p2pdist.tracker.core.jobs.records import Changes, StoredJob, StoredTarget
from p2pdist.tracker.job_store import sqlite_job_store
from tests.tracker.core.jobs.fleet import image

WRITER = """
import asyncio, sys
from pathlib import Path
from p2pdist.tracker.core.jobs.records import Changes
from p2pdist.tracker.job_store import sqlite_job_store
from tests.tracker.test_job_store import job, target

async def main():
    store = sqlite_job_store(Path(sys.argv[1]))
    await store.open()
    for number in range(10_000):
        await store.write(Changes([job(f"j{number}")], [(f"j{number}", target(number))]))
        print(number, flush=True)

asyncio.run(main())
"""


def job(job_id: str, created_unix_s: float = 1.0) -> StoredJob:
    return StoredJob(job_id, JobSpec([image()]), "running", created_unix_s, wave=1)


def target(number: int) -> StoredTarget:
    return StoredTarget(
        f"{number:032x}", f"host-{number}", "dc1", "linux/amd64", 0, 2, True, "error"
    )


def write_and_be_killed(path: Path) -> int:
    """Return the number of the last job that was written."""
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < 20:
            pass
        writer.send_signal(signal.SIGKILL)
        return max(20, *map(int, writer.stdout.read().split()), 0)


async def test_jobs_and_their_hosts_come_back_from_the_oldest_on(tmp_path: Path) -> None:
    store = sqlite_job_store(tmp_path / "jobs.db")
    await store.open()
    await store.write(
        Changes(
            [job("younger", 2.0), job("older", 1.0)],
            [("older", target(1)), ("older", target(2)), ("younger", target(1))],
        )
    )
    await store.close()

    loaded = await sqlite_job_store(tmp_path / "jobs.db").open()
    assert loaded == [
        (job("older", 1.0), [target(1), target(2)]),
        (job("younger", 2.0), [target(1)]),
    ]


async def test_what_is_dropped_and_deleted_is_gone(tmp_path: Path) -> None:
    store = sqlite_job_store(tmp_path / "jobs.db")
    await store.open()
    hosts = [("kept", target(1)), ("gone", target(1))]
    await store.write(Changes([job("kept"), job("gone")], hosts))
    await store.write(Changes(deleted=["gone"], hosts_dropped=["kept"]))
    await store.close()

    assert await sqlite_job_store(tmp_path / "jobs.db").open() == [(job("kept"), [])]


async def test_what_was_written_outlives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    last = await asyncio.to_thread(write_and_be_killed, path)

    loaded = {stored.id: targets for stored, targets in await sqlite_job_store(path).open()}
    assert {f"j{number}" for number in range(last + 1)} <= set(loaded)
    assert all(len(targets) == 1 for targets in loaded.values())


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 100])
async def test_a_damaged_file_is_moved_aside(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "jobs.db"
    store = sqlite_job_store(path)
    await store.open()
    await store.write(Changes([job("lost")]))
    await store.close()
    whole = path.read_bytes()
    path.write_bytes(damage or whole[:2048] + b"\xff" * (len(whole) - 2048))

    again = sqlite_job_store(path)
    assert await again.open() == []
    await again.write(Changes([job("new")]))
    assert path.with_suffix(".damaged").exists()
    await again.close()


async def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match=r"jobs\.db"):
        await sqlite_job_store(tmp_path / "file" / "jobs.db").open()


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "jobs.db").symlink_to(tmp_path / "victim")
    store = sqlite_job_store(tmp_path / "state" / "jobs.db")

    with pytest.raises(StoreError, match="no place for a database"):
        asyncio.run(store.open())
    asyncio.run(store.close())

    assert not os.path.lexists(tmp_path / "victim")
