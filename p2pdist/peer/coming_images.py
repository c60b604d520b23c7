"""Images that engines with snapshotters have just asked for: told to the snapshotter of this host
while the engine is still busy with manifest and config."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from p2pdist.oci.layered_image import LayeredImage
from p2pdist.oci.wanted_images import WAIT_S, WantedImage
from p2pdist.process.tasks import TaskOwner

BETWEEN_S: Final = 1.0
"""Between two questions of a snapshotter: it asks anew when it has been answered."""
KEPT_MAX: Final = 8
FOUND_AT_ONCE_MAX: Final = 32
LISTENERS_MAX: Final = 4
"""One is there; others are of a snapshotter that was replaced, or of nobody."""


class ComingImages:
    """Nothing is looked for unless a snapshotter listens."""

    def __init__(self, *, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._told: deque[WantedImage] = deque(maxlen=KEPT_MAX)
        self._number = 0
        """Of the last one."""
        self._news = asyncio.Event()
        self._listeners = 0
        self._heard_s = -BETWEEN_S
        self._tasks = TaskOwner("coming images")
        self._closed = False

    @property
    def attended(self) -> bool:
        """Whether a snapshotter listens here, or was answered a moment ago."""
        return self._listeners > 0 or self._now_s() < self._heard_s + BETWEEN_S

    async def close(self) -> None:
        """Nobody waits here any more."""
        self._closed = True
        self._news.set()
        await self._tasks.close()

    def tell(self, find: Callable[[], Awaitable[LayeredImage | None]]) -> None:
        """Have an image found and tell of it, if a snapshotter listens; without waiting."""
        if self.attended and len(self._tasks) < FOUND_AT_ONCE_MAX:
            self._tasks.start(self._tell(find), name="config")

    async def next(self, after: int | None) -> WantedImage | None:
        """Return the first that was told of after that number, None where none is for a while.
        A number that is not known yet is of an earlier run of this daemon."""
        if after is None or after > self._number:
            after = self._number
        if self._listeners >= LISTENERS_MAX:
            return None
        self._listeners += 1
        try:
            async with asyncio.timeout(self._wait_s):
                while not self._closed:
                    if (found := self._after(after)) is not None:
                        return found
                    await self._news.wait()
        except TimeoutError:
            pass
        finally:
            self._listeners -= 1
            self._heard_s = self._now_s()
        return None

    def _after(self, number: int) -> WantedImage | None:
        return next((image for image in self._told if image.number > number), None)

    async def _tell(self, find: Callable[[], Awaitable[LayeredImage | None]]) -> None:
        image = await find()
        if image is None or self._closed:
            return
        self._number += 1
        self._told.append(WantedImage(self._number, image))
        self._news.set()
        self._news = asyncio.Event()

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()
