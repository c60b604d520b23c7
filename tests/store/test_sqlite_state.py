"""What is said of SQLite alone; the rest is `tests/conformance/state`."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from p2pdist.errors import StoreError
from p2pdist.store.sqlite_state import SqliteState
from p2pdist.store.state_port import Record, StateRows

TABLES = {"jobs": ["id"], "targets": ["job", "host"]}


def state_at(path: Path, aside: list[Path] | None = None) -> SqliteState:
    moved = [] if aside is None else aside
    return SqliteState(path, TABLES, lambda to, error: moved.append(to))


def jobs(rows: StateRows) -> list[Record]:
    return list(rows.of("jobs"))


async def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "jobs.v1.db"
    with closing(sqlite3.connect(path)) as first:
        first.execute("CREATE TABLE jobs (id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID")
        first.execute("INSERT INTO jobs VALUES ('a', x'00ff')")
        first.commit()

    state = state_at(path)
    assert await state.open(jobs) == [b"\0\xff"]
    await state.write({"jobs": [(("a",), b"new")]}, {})
    await state.close()

    again = state_at(path)
    assert await again.open(jobs) == [b"new"]
    await again.close()


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
async def test_a_damaged_file_is_moved_aside_and_said(
    tmp_path: Path, content: bytes | None
) -> None:
    """Also one whose records are none."""
    path, aside = tmp_path / "jobs.v1.db", list[Path]()
    if content is not None:
        path.write_bytes(content)
    else:
        with closing(sqlite3.connect(path)) as strange:
            strange.execute("CREATE TABLE jobs (id TEXT PRIMARY KEY, record) WITHOUT ROWID")
            strange.execute("INSERT INTO jobs VALUES ('a', 'text')")
            strange.commit()

    state = state_at(path, aside)
    assert await state.open(jobs) == []
    await state.close()

    assert aside == [path.with_suffix(".damaged")]
    assert aside[0].exists()


async def test_a_file_that_the_disk_does_not_give_stays_and_is_said(tmp_path: Path) -> None:
    path = tmp_path / "jobs.v1.db"
    path.touch()
    (tmp_path / "jobs.v1.db-wal").mkdir()  # SQLite cannot open its log

    state = state_at(path)
    with pytest.raises(StoreError, match=r"jobs\.v1\.db"):
        await state.open(jobs)
    await state.close()

    assert path.exists()
    assert not path.with_suffix(".damaged").exists()


async def test_the_file_is_for_us_alone(tmp_path: Path) -> None:
    state = state_at(tmp_path / "state" / "jobs.v1.db")
    await state.open(jobs)
    await state.close()

    assert os.stat(tmp_path / "state" / "jobs.v1.db").st_mode & 0o777 == 0o600
    assert os.stat(tmp_path / "state").st_mode & 0o777 == 0o700
