"""The replicas on disk: SQLite, one worker thread, every change flushed before it counts."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from p2pdist.errors import StoreError
from p2pdist.process import logs
from p2pdist.process.files import own_database
from p2pdist.registry_proxy.core.replicas import Replica

log = logging.getLogger(__name__)

FILE_NAME: Final = "replication.v1.db"
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS replicas (rule TEXT, image TEXT, record BLOB NOT NULL, "
    "PRIMARY KEY (rule, image)) WITHOUT ROWID"
)

T = TypeVar("T")


class ReplicationStore:
    """Open with `open`, close with `close`; all methods raise StoreError when the disk refuses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._worker = ThreadPoolExecutor(1, "replication-store")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> list[Replica]:
        """Return what was stored; a damaged file is moved aside, and nothing was stored."""
        return await self._run(self._open)

    async def put(self, replicas: Sequence[Replica]) -> None:
        """Store replicas as they are now; on return they survive a power cut."""
        rows = [(r.rule, r.image, msgspec.json.encode(r)) for r in replicas]
        await self._run(lambda: self._write("INSERT OR REPLACE INTO replicas VALUES (?,?,?)", rows))

    async def delete(self, replicas: Sequence[Replica]) -> None:
        rows = [(r.rule, r.image) for r in replicas]
        await self._run(
            lambda: self._write("DELETE FROM replicas WHERE rule = ? AND image = ?", rows)
        )

    async def close(self) -> None:
        await self._run(self._close)
        self._worker.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}") from error

    # --- in the worker --------------------------------------------------------------------------

    def _open(self) -> list[Replica]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return self._load()
        except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # locked, or the disk: the file itself may be whole
            self._close()
            aside = self._path.with_suffix(".damaged")
            self._path.replace(aside)
            for tail in ("-wal", "-shm"):
                self._path.with_name(self._path.name + tail).unlink(missing_ok=True)
            logs.event(
                log, logging.ERROR, "replication.damaged", moved_to=str(aside), error=str(error)
            )
            return self._load()

    def _load(self) -> list[Replica]:
        own_database(self._path)
        connection = sqlite3.connect(self._path, check_same_thread=False, timeout=10.0)
        self._connection = connection
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(_TABLE)
        connection.commit()
        rows = connection.execute("SELECT record FROM replicas")
        return [msgspec.json.decode(record, type=Replica) for (record,) in rows]

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        assert self._connection is not None
        with self._connection:  # one transaction
            self._connection.executemany(statement, rows)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
