"""The replicas in durable state: every change is on the disk before it counts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from p2pdist.process import logs
from p2pdist.registry_proxy.core.replicas import Replica
from p2pdist.store.sqlite_state import SqliteState
from p2pdist.store.state_port import StateRows, StateStore, Tables

log = logging.getLogger(__name__)

FILE_NAME: Final = "replication.v1.db"
TABLES: Final[Tables] = {"replicas": ["rule", "image"]}


class ReplicationStore:
    """Open with `open`, close with `close`; all methods raise StoreError when the disk refuses."""

    def __init__(self, state: StateStore) -> None:
        """`state` has `TABLES`."""
        self._state = state

    async def open(self) -> list[Replica]:
        """Return what was stored; where the records make no sense, nothing was."""
        return await self._state.open(_loaded)

    async def put(self, replicas: Sequence[Replica]) -> None:
        """Store replicas as they are now; on return they survive a power cut."""
        records = [((r.rule, r.image), msgspec.json.encode(r)) for r in replicas]
        await self._state.write({"replicas": records}, {})

    async def delete(self, replicas: Sequence[Replica]) -> None:
        await self._state.write({}, {"replicas": [(r.rule, r.image) for r in replicas]})

    async def close(self) -> None:
        await self._state.close()


def sqlite_replication_store(path: Path) -> ReplicationStore:
    """A damaged file is moved aside, with a log line, and nothing was stored."""
    return ReplicationStore(SqliteState(path, TABLES, _moved_aside))


def _moved_aside(aside: Path, error: Exception) -> None:
    logs.event(log, logging.ERROR, "replication.damaged", moved_to=str(aside), error=str(error))


def _loaded(rows: StateRows) -> list[Replica]:
    return [msgspec.json.decode(record, type=Replica) for record in rows.of("replicas")]
