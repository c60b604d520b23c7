"""The threads in which a store touches its disk, the files that it has open there, and the one
border at which the disk may refuse.

Everything below raises OSError as it comes; nothing above has to know that there is a disk.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from p2pdist.errors import StoreError
from p2pdist.store.open_files import NO_DESCRIPTORS, OpenFiles, open_files_allowed

T = TypeVar("T")

WORKERS: Final = 4
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Disk:
    refusal: StoreError | None = None
    """Why the disk did not take what was last to be kept on it; None since it took something."""

    def __init__(self) -> None:
        self.files = OpenFiles(open_files_allowed())
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="store")

    async def run(self, what: str, work: Callable[..., T], *args: object) -> T:
        """Do blocking `work` in a thread; raise StoreError (`cannot WHAT`) for its OSError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        except OSError as error:
            raise self.refused(what, error) from error

    def refused(self, what: str, error: OSError) -> StoreError:
        """What an OSError means to those above."""
        no_descriptors = error.errno in NO_DESCRIPTORS
        if no_descriptors:
            self.files.let_go()  # the next try may find some
        return StoreError(
            f"cannot {what}: {error.strerror or error}",
            full=error.errno in _FULL,
            no_descriptors=no_descriptors,
        )

    async def keep(self, what: str, work: Callable[..., T], *args: object) -> T:
        """As `run`, for work that takes room: `refusal` remembers how it went."""
        try:
            done = await self.run(what, work, *args)
        except StoreError as error:
            self.refusal = error
            raise
        self.refusal = None
        return done

    def close(self) -> None:
        self._pool.shutdown()
