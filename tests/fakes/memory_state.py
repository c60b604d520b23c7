"""Durable state that is kept in a dictionary, which outlives whoever opened it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from p2pdist.store.state_port import Deletes, Key, Puts, Record, StateRows, Tables

T = TypeVar("T")
Kept = dict[str, dict[Key, Record]]


class MemoryState:
    """Held to the same contract as the file of SQLite (`tests/conformance/state`)."""

    def __init__(self, tables: Tables, kept: Kept | None = None) -> None:
        """`kept`: what another one left, and what this one leaves."""
        self._tables = tables
        self.kept: Kept = {} if kept is None else kept

    async def open(self, read: Callable[[StateRows], T]) -> T:
        for table in self._tables:
            self.kept.setdefault(table, {})
        try:
            return read(self)
        except ValueError:
            for records in self.kept.values():
                records.clear()
            return read(self)

    def of(self, table: str, begin: Key = ()) -> Iterator[Record]:
        return iter([record for key, record in self.kept[table].items() if _begins(key, begin)])

    async def write(self, puts: Puts, deletes: Deletes) -> None:
        fresh = {table: dict(records) for table, records in self.kept.items()}
        for table, records in puts.items():
            for key, record in records:
                assert len(key) == len(self._tables[table])
                fresh[table][key] = bytes(record)
        for table, begins in deletes.items():
            for key in list(fresh[table]):
                if any(_begins(key, begin) for begin in begins):
                    del fresh[table][key]
        self.kept.update(fresh)

    async def close(self) -> None: ...


def _begins(key: Key, begin: Key) -> bool:
    return key[: len(begin)] == begin
