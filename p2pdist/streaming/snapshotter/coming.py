"""Opens images while the engine that is about to pull them still asks for manifest and config."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from p2pdist.process import logs
from p2pdist.streaming.snapshotter.images import LazyImages
from p2pdist.streaming.snapshotter.mirror import Mirror, MirrorFault

log = logging.getLogger(__name__)

AGAIN_S: Final = 5.0
"""After a question that the mirror did not take, or that it answered at once with nothing."""


class ComingImages:
    """Indexes come beside the config then, not after it."""

    def __init__(self, mirror: Mirror, images: LazyImages) -> None:
        self._mirror = mirror
        self._images = images

    async def run(self) -> None:
        """For ever."""
        number: int | None = None
        loop = asyncio.get_running_loop()
        while True:
            asked_s = loop.time()
            try:
                coming = await self._mirror.coming_image(number)
            except MirrorFault as error:  # it may be about to start
                logs.event(log, logging.DEBUG, "coming.not_told", error=str(error))
                coming = None
            if coming is not None:
                number = coming.number
                self._images.expect(coming.image)
            elif loop.time() < asked_s + AGAIN_S:
                await asyncio.sleep(AGAIN_S)
