"""The tracker's jobs in durable state: what changed is written all or nothing.

What is written is on the disk when the call returns, so that a job that was accepted outlives
`kill -9` and a power cut. A host's row holds what its next connection does not tell.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, Protocol

import msgspec

from p2pdist.process import logs
from p2pdist.store.sqlite_state import SqliteState
from p2pdist.store.state_port import Puts, StateRows, StateStore, Tables
from p2pdist.tracker.core.jobs.records import Changes, StoredJob, StoredTarget

log = logging.getLogger(__name__)

FILE_NAME: Final = "jobs.v1.db"
TABLES: Final[Tables] = {"jobs": ["id"], "targets": ["job", "host"]}

Loaded = list[tuple[StoredJob, list[StoredTarget]]]


class JobStore(Protocol):
    """All methods raise StoreError where the disk refuses."""

    async def open(self) -> Loaded:
        """Return what was stored, from the oldest job to the newest."""

    async def write(self, changes: Changes) -> None: ...
    async def close(self) -> None: ...


class StateJobStore:
    def __init__(self, state: StateStore) -> None:
        """`state` has `TABLES`."""
        self._state = state

    async def open(self) -> Loaded:
        """Where the records make no sense, nothing was stored."""
        return await self._state.open(_loaded)

    async def write(self, changes: Changes) -> None:
        encode = msgspec.msgpack.encode
        puts: Puts = {
            "targets": [((job, host.host_id), encode(host)) for job, host in changes.targets],
            "jobs": [((job.id,), encode(job)) for job in changes.jobs],
        }
        without_hosts = [(job,) for job in (*changes.hosts_dropped, *changes.deleted)]
        deleted = [(job,) for job in changes.deleted]
        await self._state.write(puts, {"targets": without_hosts, "jobs": deleted})

    async def close(self) -> None:
        await self._state.close()


def sqlite_job_store(path: Path) -> StateJobStore:
    """A damaged file is moved aside, with a log line, and nothing was stored."""
    return StateJobStore(SqliteState(path, TABLES, _moved_aside))


def _moved_aside(aside: Path, error: Exception) -> None:
    logs.event(log, logging.ERROR, "jobs.damaged", moved_to=str(aside), error=str(error))


def _loaded(rows: StateRows) -> Loaded:
    decode = msgspec.msgpack.decode
    jobs = sorted((decode(record, type=StoredJob) for record in rows.of("jobs")), key=_age)
    return [
        (job, [decode(record, type=StoredTarget) for record in rows.of("targets", (job.id,))])
        for job in jobs
    ]


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
