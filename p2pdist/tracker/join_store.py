"""Uses of join tokens in durable state: they stay used over `kill -9` and a power cut."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from p2pdist.model.ids import HostId
from p2pdist.process import logs
from p2pdist.store.sqlite_state import SqliteState
from p2pdist.store.state_port import StateRows, StateStore, Tables
from p2pdist.tracker.core.joins import Use

log = logging.getLogger(__name__)

FILE_NAME: Final = "joins.v1.db"
TABLES: Final[Tables] = {"uses": ["token", "key"], "spent": ["id"]}
_Spent = tuple[bytes, int]
"""The id of a token of one use, and its end: the table of trackers that knew no others. It is
written for them, so that going back to one makes no token good again."""


class JoinStore:
    """All methods raise StoreError where the disk refuses."""

    def __init__(self, state: StateStore) -> None:
        """`state` has `TABLES`."""
        self._state = state

    async def open(self) -> list[Use]:
        return await self._state.open(_uses)

    async def keep(self, use: Use, ended: Sequence[bytes], *, once: bool) -> None:
        """Keep one for good, and let go of tokens that have ended. `once`: there is no other use of
        its token."""
        record = msgspec.msgpack.encode(use)
        puts: dict[str, list[tuple[tuple[str, ...], bytes]]] = {
            "uses": [((use.token.hex(), use.key.hex()), record)]
        }
        if once:
            spent: _Spent = (use.token, use.ends_s)
            puts["spent"] = [((use.token.hex(),), msgspec.msgpack.encode(spent))]
        gone = [(each.hex(),) for each in ended]
        await self._state.write(puts, {"uses": gone, "spent": gone})

    async def close(self) -> None:
        await self._state.close()


def sqlite_join_store(path: Path) -> JoinStore:
    """A damaged file is moved aside, with a log line: tokens that were used are good again then,
    until they end."""
    return JoinStore(SqliteState(path, TABLES, _moved_aside))


def _moved_aside(aside: Path, error: Exception) -> None:
    logs.event(log, logging.ERROR, "joins.damaged", moved_to=str(aside), error=str(error))


def _uses(rows: StateRows) -> list[Use]:
    found = [msgspec.msgpack.decode(record, type=Use) for record in rows.of("uses")]
    known = {use.token for use in found}
    spent = [msgspec.msgpack.decode(record, type=_Spent) for record in rows.of("spent")]
    return found + [
        Use(token, b"", HostId(""), ends_s) for token, ends_s in spent if token not in known
    ]
