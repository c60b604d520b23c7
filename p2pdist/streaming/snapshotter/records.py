"""Snapshots on disk: what containerd was told must be there after a crash."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

import msgspec

from p2pdist.errors import ConfigError
from p2pdist.process.files import own_database
from p2pdist.streaming.snapshotter.core.snapshots import Snapshot

VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS snapshots (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- SQLite remembers the last one that it gave away
    record BLOB NOT NULL
);
"""


class SnapshotRecords:
    """Blocking; one thread at a time. Raises sqlite3.Error where the disk refuses."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError for a file of another version, or one that is none of ours; OSError
        for one that is a link."""
        own_database(path)
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, VERSION):
                raise ConfigError(f"{path} is of version {found}, this one knows {VERSION}")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{path}: {error}") from None

    def load(self) -> list[Snapshot]:
        """A record that cannot be read is left out: one must not keep all others from starting."""
        found = []
        for (record,) in self._db.execute("SELECT record FROM snapshots ORDER BY number"):
            try:
                found.append(msgspec.msgpack.decode(record, type=Snapshot))
            except msgspec.DecodeError:
                continue
        return found

    def last_number(self) -> int:
        """Of all that were ever put here."""
        query = "SELECT seq FROM sqlite_sequence WHERE name = 'snapshots'"
        return int((self._db.execute(query).fetchone() or (0,))[0])

    def put(self, snapshot: Snapshot) -> None:
        record = msgspec.msgpack.encode(snapshot)
        self._db.execute(
            "INSERT OR REPLACE INTO snapshots (number, record) VALUES (?, ?)",
            (snapshot.number, record),
        )

    def remove(self, number: int) -> None:
        self._db.execute("DELETE FROM snapshots WHERE number = ?", (number,))

    def close(self) -> None:
        self._db.close()
