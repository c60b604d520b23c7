"""State in a file of SQLite (`state_port`): one worker thread, a transaction for each change."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from p2pdist.errors import StoreError
from p2pdist.process.files import own_database
from p2pdist.store.state_port import Deletes, Key, Puts, Record, StateRows, Tables

T = TypeVar("T")


class SqliteState:
    """Names of tables and of parts of keys are ours: they become part of statements."""

    def __init__(
        self, path: Path, tables: Tables, moved_aside: Callable[[Path, Exception], None]
    ) -> None:
        """`moved_aside` hears, in the worker, where a damaged file went, and why."""
        self._path = path
        self._tables = tables
        self._moved_aside = moved_aside
        self._worker = ThreadPoolExecutor(1, f"state {path.stem}")
        self._connection: sqlite3.Connection | None = None

    async def open(self, read: Callable[[StateRows], T]) -> T:
        """A damaged file is moved aside (`.damaged`)."""
        return await self._run(lambda: self._open(read))

    async def write(self, puts: Puts, deletes: Deletes) -> None:
        await self._run(lambda: self._write(puts, deletes))

    async def close(self) -> None:
        await self._run(self._close)
        self._worker.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}") from error

    # --- in the worker --------------------------------------------------------------------------

    def _open(self, read: Callable[[StateRows], T]) -> T:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return read(self._connected())
        except (sqlite3.DatabaseError, ValueError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # locked, or the disk: the file itself may be whole
            self._close()
            aside = self._path.with_suffix(".damaged")
            self._path.replace(aside)
            for tail in ("-wal", "-shm"):
                self._path.with_name(self._path.name + tail).unlink(missing_ok=True)
            self._moved_aside(aside, error)
            return read(self._connected())

    def _connected(self) -> _Rows:
        own_database(self._path)
        connection = sqlite3.connect(self._path, check_same_thread=False, timeout=10.0)
        self._connection = connection
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        for table, parts in self._tables.items():
            columns = ", ".join(f"{part} TEXT" for part in parts)
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {table} ({columns}, record BLOB NOT NULL, "
                f"PRIMARY KEY ({', '.join(parts)})) WITHOUT ROWID"
            )
        connection.commit()
        return _Rows(connection, self._tables)

    def _write(self, puts: Puts, deletes: Deletes) -> None:
        assert self._connection is not None
        with self._connection as one:  # one transaction
            for table, records in puts.items():
                marks = ", ".join("?" * (len(self._tables[table]) + 1))
                statement = f"INSERT OR REPLACE INTO {table} VALUES ({marks})"  # noqa: S608  # ours
                one.executemany(statement, ((*key, record) for key, record in records))
            for table, begins in deletes.items():
                self._delete(one, table, begins)

    def _delete(self, one: sqlite3.Connection, table: str, begins: Iterable[Key]) -> None:
        for begin in begins:
            where = _begins(self._tables, table, begin)
            one.execute(f"DELETE FROM {table} WHERE {where}", begin)  # noqa: S608  # ours

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Rows:
    def __init__(self, connection: sqlite3.Connection, tables: Tables) -> None:
        self._connection = connection
        self._tables = tables

    def of(self, table: str, begin: Key = ()) -> Iterator[Record]:
        where = _begins(self._tables, table, begin)
        query = f"SELECT record FROM {table} WHERE {where}"  # noqa: S608  # ours
        for (record,) in self._connection.execute(query, begin):
            if not isinstance(record, bytes):
                raise ValueError(f"a record that is {type(record).__name__}")
            yield record


def _begins(tables: Tables, table: str, begin: Key) -> str:
    """The condition of keys that begin so; its values are `begin`."""
    parts = tables[table]
    assert len(begin) <= len(parts)
    return " AND ".join(["1", *(f"{part} = ?" for part in parts[: len(begin)])])
