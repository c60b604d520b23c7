"""The tracker's jobs on disk: SQLite, one worker thread, a transaction per change.

What is written is on the disk when the call returns, so that a job that was accepted outlives
`kill -9` and a power cut. A host's row holds what its next connection does not tell.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from p2pdist.errors import StoreError
from p2pdist.process import logs
from p2pdist.process.files import own_database
from p2pdist.tracker.core.jobs.records import Changes, StoredJob, StoredTarget

log = logging.getLogger(__name__)

FILE_NAME: Final = "jobs.v1.db"
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS targets (
    job TEXT, host TEXT, record BLOB NOT NULL, PRIMARY KEY (job, host)) WITHOUT ROWID;
"""

T = TypeVar("T")


Loaded = list[tuple[StoredJob, list[StoredTarget]]]


class JobStore(Protocol):
    """All methods raise StoreError where the disk refuses."""

    async def open(self) -> Loaded:
        """Return what was stored, from the oldest job to the newest."""

    async def write(self, changes: Changes) -> None: ...
    async def close(self) -> None: ...


class SqliteJobStore:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._worker = ThreadPoolExecutor(1, "job-store")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> Loaded:
        """A damaged file is moved aside, with a log line, and nothing was stored."""
        return await self._run(self._open)

    async def write(self, changes: Changes) -> None:
        await self._run(lambda: self._write(changes))

    async def close(self) -> None:
        await self._run(self._close)
        self._worker.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}") from error

    # --- in the worker --------------------------------------------------------------------------

    def _open(self) -> Loaded:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return self._load()
        except (sqlite3.DatabaseError, msgspec.DecodeError, UnicodeDecodeError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # locked, or the disk: the file itself may be whole
            self._close()
            aside = self._path.with_suffix(".damaged")
            self._path.replace(aside)
            for tail in ("-wal", "-shm"):
                self._path.with_name(self._path.name + tail).unlink(missing_ok=True)
            logs.event(log, logging.ERROR, "jobs.damaged", moved_to=str(aside), error=str(error))
            return self._load()

    def _load(self) -> Loaded:
        own_database(self._path)
        connection = sqlite3.connect(self._path, check_same_thread=False, timeout=10.0)
        self._connection = connection
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(_TABLES)
        rows = connection.execute("SELECT record FROM jobs")
        jobs = [msgspec.msgpack.decode(record, type=StoredJob) for (record,) in rows]
        return [(job, self._targets(job.id)) for job in sorted(jobs, key=_age)]

    def _targets(self, job: str) -> list[StoredTarget]:
        assert self._connection is not None
        rows = self._connection.execute("SELECT record FROM targets WHERE job = ?", (job,))
        return [msgspec.msgpack.decode(record, type=StoredTarget) for (record,) in rows]

    def _write(self, changes: Changes) -> None:
        assert self._connection is not None
        encode = msgspec.msgpack.encode
        targets = [(job, target.host_id, encode(target)) for job, target in changes.targets]
        jobs = [(job.id, encode(job)) for job in changes.jobs]
        without_hosts = [(job,) for job in (*changes.hosts_dropped, *changes.deleted)]
        with self._connection as one:  # one transaction
            one.executemany("INSERT OR REPLACE INTO targets VALUES (?, ?, ?)", targets)
            one.executemany("INSERT OR REPLACE INTO jobs VALUES (?, ?)", jobs)
            one.executemany("DELETE FROM targets WHERE job = ?", without_hosts)
            one.executemany("DELETE FROM jobs WHERE id = ?", [(job,) for job in changes.deleted])

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class NoJobStore:
    """Keeps nothing: a tracker without a state directory forgets its jobs when it ends."""

    async def open(self) -> Loaded:
        return []

    async def write(self, changes: Changes) -> None:
        pass

    async def close(self) -> None:
        pass


def _age(job: StoredJob) -> tuple[float, str]:
    return job.created_unix_s, job.id
