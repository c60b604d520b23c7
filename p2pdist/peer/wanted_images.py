"""Images that engines are about to pull, told to the snapshotter of this host: it may show their
layers before the engine asks for one."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import Final

from p2pdist.oci.layered_image import LayeredImage
from p2pdist.oci.wanted_images import WAIT_S, WantedImage

HOLD_S: Final = 2.2
"""How long an engine waits: a snapshotter decides within 2 s (`snapshotter.images.OPEN_S`)."""
BETWEEN_S: Final = 1.0
"""Between two questions of a snapshotter: it asks anew when it has been answered."""
PULLS_MAX: Final = 32
LISTENERS_MAX: Final = 4
"""One is there; others are of a snapshotter that was replaced, or of nobody."""


class WantedImages:
    """Nobody waits unless a snapshotter waits here, and no longer than HOLD_S."""

    def __init__(self, *, hold_s: float = HOLD_S, wait_s: float = WAIT_S) -> None:
        self._hold_s = hold_s
        self._wait_s = wait_s
        self._numbers = itertools.count()
        self._listeners: deque[asyncio.Future[WantedImage | None]] = deque()
        self._pulls: dict[int, asyncio.Event] = {}
        self._untold: deque[WantedImage] = deque()
        self._told_s = -BETWEEN_S
        self._closed = False

    @property
    def listeners(self) -> int:
        """How many wait here to be told."""
        return sum(not listener.done() for listener in self._listeners)

    @property
    def attended(self) -> bool:
        """Whether a snapshotter waits here, or was answered a moment ago."""
        return self.listeners > 0 or asyncio.get_running_loop().time() < self._told_s + BETWEEN_S

    def close(self) -> None:
        """Nobody waits here any more."""
        self._closed = True
        for listener in self._listeners:
            _answer(listener, None)
        for pull in self._pulls.values():
            pull.set()

    async def next(self) -> WantedImage | None:
        """Return an image as soon as an engine is about to pull it; None: none for a while. To be
        cancelled when whoever asks is gone."""
        while self._untold:
            wanted = self._untold.popleft()
            if wanted.number in self._pulls:  # else its engine has gone on
                self._told()
                return wanted
        if self._closed:
            return None
        listener: asyncio.Future[WantedImage | None] = asyncio.Future()
        self._listeners.append(listener)
        if len(self._listeners) > LISTENERS_MAX:
            _answer(self._listeners.popleft(), None)
        try:
            await asyncio.wait([listener], timeout=self._wait_s)
        finally:
            if listener in self._listeners:
                self._listeners.remove(listener)
        return listener.result() if listener.done() else None

    def settle(self, number: int) -> None:
        """Its layers are shown, or will not be."""
        if (pull := self._pulls.get(number)) is not None:
            pull.set()

    async def offer(self, image: LayeredImage) -> None:
        """Return when the snapshotter of this host has done what it can for a pull of `image`."""
        if not self.attended or len(self._pulls) >= PULLS_MAX:
            return
        wanted, settled = WantedImage(next(self._numbers), image), asyncio.Event()
        self._pulls[wanted.number] = settled
        self._tell(wanted)
        try:
            async with asyncio.timeout(self._hold_s):
                await settled.wait()
        except TimeoutError:
            pass
        finally:
            del self._pulls[wanted.number]

    def _tell(self, wanted: WantedImage) -> None:
        for listener in self._listeners:
            if not listener.done():
                listener.set_result(wanted)
                self._told()
                return
        self._untold.append(wanted)

    def _told(self) -> None:
        self._told_s = asyncio.get_running_loop().time()


def _answer(listener: asyncio.Future[WantedImage | None], wanted: WantedImage | None) -> None:
    if not listener.done():
        listener.set_result(wanted)
