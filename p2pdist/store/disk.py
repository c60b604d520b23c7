"""The threads in which a store touches its disk, and the one border at which it may refuse.

Everything below raises OSError as it comes; nothing above has to know that there is a disk.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from p2pdist.errors import StoreError

T = TypeVar("T")

WORKERS: Final = 4
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Disk:
    refusal: StoreError | None = None
    """Why the disk did not take what was last to be kept on it; None since it took something."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="store")

    async def run(self, what: str, work: Callable[..., T], *args: object) -> T:
        """Do blocking `work` in a thread; raise StoreError (`cannot WHAT`) for its OSError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        except OSError as error:
            full = error.errno in _FULL
            raise StoreError(f"cannot {what}: {error.strerror or error}", full=full) from error

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
