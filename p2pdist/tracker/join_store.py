"""Spent join tokens in durable state: one that was used stays so over `kill -9` and a power cut."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from p2pdist.process import logs
from p2pdist.store.sqlite_state import SqliteState
from p2pdist.store.state_port import StateRows, StateStore, Tables

log = logging.getLogger(__name__)

FILE_NAME: Final = "joins.v1.db"
TABLES: Final[Tables] = {"spent": ["id"]}
Spent = tuple[bytes, int]
"""The id of a token, and its end."""


class JoinStore:
    """All methods raise StoreError where the disk refuses."""

    def __init__(self, state: StateStore) -> None:
        """`state` has `TABLES`."""
        self._state = state

    async def open(self) -> list[Spent]:
        return await self._state.open(_spent)

    async def spend(self, spent: Spent, ended: Sequence[bytes]) -> None:
        """Keep one for good, and let go of those that have ended."""
        puts = {"spent": [((spent[0].hex(),), msgspec.msgpack.encode(spent))]}
        await self._state.write(puts, {"spent": [(each.hex(),) for each in ended]})

    async def close(self) -> None:
        await self._state.close()


def sqlite_join_store(path: Path) -> JoinStore:
    """A damaged file is moved aside, with a log line: tokens that were spent are good again then,
    until they end."""
    return JoinStore(SqliteState(path, TABLES, _moved_aside))


def _moved_aside(aside: Path, error: Exception) -> None:
    logs.event(log, logging.ERROR, "joins.damaged", moved_to=str(aside), error=str(error))


def _spent(rows: StateRows) -> list[Spent]:
    return [msgspec.msgpack.decode(record, type=Spent) for record in rows.of("spent")]
