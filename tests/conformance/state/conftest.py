"""The `states` fixture: the same statements for every kind of durable state (`state_port`).

To put another one to the test, write a `Bench` and add it to `BENCHES`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, Protocol

import pytest

from p2pdist.store.sqlite_state import SqliteState
from p2pdist.store.state_port import Key, Record, StateRows, StateStore, Tables
from tests.fakes.memory_state import Kept, MemoryState

TABLES: Final[Tables] = {"jobs": ["id"], "hosts": ["job", "host"]}
Found = dict[str, list[Record]]


def everything(rows: StateRows) -> Found:
    return {table: sorted(rows.of(table)) for table in TABLES}


class Bench(Protocol):
    def another(self) -> StateStore:
        """As after a restart, over what the one before has left."""


class SqliteBench:
    def __init__(self, directory: Path) -> None:
        self.aside: list[Path] = []
        self._path = directory / "state" / "kept.db"

    def another(self) -> StateStore:
        return SqliteState(self._path, TABLES, lambda path, error: self.aside.append(path))


class MemoryBench:
    def __init__(self, directory: Path) -> None:
        self._kept: Kept = {}

    def another(self) -> StateStore:
        return MemoryState(TABLES, self._kept)


BENCHES: Final[dict[str, Callable[[Path], Bench]]] = {"sqlite": SqliteBench, "memory": MemoryBench}


class States:
    """One state after the other, each closed before the next one opens."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._open: StateStore | None = None

    async def unopened(self) -> StateStore:
        await self.close()
        self._open = self._bench.another()
        return self._open

    async def opened(self) -> StateStore:
        state = await self.unopened()
        await state.open(everything)
        return state

    async def found(self) -> Found:
        """What is there after a restart."""
        return await (await self.unopened()).open(everything)

    async def close(self) -> None:
        if self._open is not None:
            await self._open.close()


@pytest.fixture(params=BENCHES)
async def states(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[States]:
    states = States(BENCHES[request.param](tmp_path))
    yield states
    await states.close()


def numbered(*hosts: tuple[str, str]) -> list[tuple[Key, Record]]:
    """Records of hosts that say what their keys are."""
    return [((job, host), f"{job}/{host}".encode()) for job, host in hosts]
