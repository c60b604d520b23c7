"""Keeps the store in step with the jobs: at once for what is promised, else twice a second."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from p2pdist.errors import StoreError
from p2pdist.process import logs
from p2pdist.tracker.core.jobs.book import JobBook
from p2pdist.tracker.job_store import JobStore

FLUSH_EVERY_S: Final = 0.5
# About 2 ms of the event loop to gather.
TARGETS_PER_WRITE: Final = 1000

log = logging.getLogger(__name__)


class JobKeeper:
    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._writing = asyncio.Lock()
        self._opened = False

    async def load(self, book: JobBook, now_s: float) -> None:
        """Take in the jobs of before. A store that cannot be read keeps no tracker from serving
        its swarms; it takes no jobs then."""
        try:
            loaded = await self._store.open()
        except StoreError as error:
            logs.event(log, logging.ERROR, "jobs.unreadable", error=str(error))
            return
        self._opened = True
        for job, targets in loaded:
            try:
                book.restore(job, targets, now_s)
            except ValueError as error:
                logs.event(log, logging.ERROR, "jobs.record_ignored", job=job.id, error=str(error))
            await asyncio.sleep(0)
        if loaded:
            logs.event(log, logging.INFO, "jobs.loaded", jobs=len(loaded))

    async def keep_writing(self, book: JobBook) -> None:
        """Write what changed, for ever; a disk that refuses is tried again."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            try:
                await self.flush(book)
            except StoreError as error:
                logs.event(log, logging.ERROR, "jobs.not_stored", error=str(error))

    async def flush(self, book: JobBook) -> None:
        """Return once all that changed so far is on the disk. Raises StoreError."""
        if not self._opened:
            raise StoreError("the tracker cannot read its job store, see its log")
        async with self._writing:
            while changes := book.take_changes(TARGETS_PER_WRITE):
                try:
                    await self._store.write(changes)
                except BaseException:
                    book.give_back(changes)
                    raise

    async def close(self, book: JobBook) -> None:
        if self._opened:
            try:
                await self.flush(book)
            except StoreError as error:
                logs.event(log, logging.ERROR, "jobs.not_stored", error=str(error))
            await self._store.close()
